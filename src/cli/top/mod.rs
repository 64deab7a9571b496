//! `hsmac top`: how a running hsmac is, looked at each second.

mod rates;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use self::screen::{Screen, Sort};
use super::{
    CliError,
    admin_socket::{AdminClient, AdminSocket, Heard},
};
use crate::admin::StatusReport;

pub(super) const EXAMPLES: &str = "\
Examples:
  hsmac top
  hsmac top --config /etc/hsmac/hsmac.toml
  sudo -u hsmac hsmac top --socket /run/hsmac/admin.sock

Keys: q quits; w sorts by what is worst, n by name, r by rate, p by p99, f by faults.
Exit codes: 0 q; 69 hsmac cannot be reached at the start; 64 usage, or no terminal; 78 configuration.";

/// How often hsmac is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How soon a key is obeyed.
const KEYS: Duration = Duration::from_millis(100);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    socket: AdminSocket,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    if !io::stdout().is_terminal() {
        let text = "hsmac top is for a terminal; for a file or a pipe there is hsmac status";
        return Err(CliError::Usage(text.to_owned()));
    }
    let client = AdminClient::new(&arguments.socket)?;
    // Who cannot be reached at all is told of in words, on a terminal that is as it was.
    let first = look(&client)?;
    let (looks, seen) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let asking = thread::spawn(move || keep_looking(&client, &looks, &ended));
    let mut screen = Screen::default();
    screen.take(Ok(first));
    let shown = ratatui::try_init().and_then(|mut terminal| {
        let shown = show(&mut terminal, &mut screen, &seen);
        ratatui::restore();
        shown
    });
    // It ends at its next look, at the latest when a server that does not answer is given up.
    drop(end);
    drop(asking);
    shown.map_err(|error| CliError::Bug(format!("the terminal: {error}")))
}

/// What was seen, or why there was nothing to see.
type Look = Result<Box<StatusReport>, String>;

fn look(client: &AdminClient) -> Result<Box<StatusReport>, CliError> {
    Ok(match client.ask()? {
        Heard::Status(status) => Box::new(status.report),
        Heard::Starting(said) => Box::new(StatusReport {
            summary: format!("Not ready yet: {said}"),
            ..StatusReport::default()
        }),
    })
}

fn keep_looking(client: &AdminClient, looks: &Sender<Look>, ended: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
        let seen = look(client).map_err(|error| error.to_string());
        if looks.send(seen).is_err() {
            break;
        }
    }
}

/// Until the user has seen enough.
fn show(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    seen: &Receiver<Look>,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        if event::poll(KEYS)?
            && let Event::Key(key) = event::read()?
            && obey(key, screen) == Wish::Quit
        {
            return Ok(());
        }
        for look in seen.try_iter() {
            screen.take(look);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    GoOn,
    Quit,
}

fn obey(key: KeyEvent, screen: &mut Screen) -> Wish {
    if key.kind != KeyEventKind::Press {
        return Wish::GoOn;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    #[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has many more")]
    match key.code {
        KeyCode::Char('c') if control => return Wish::Quit,
        KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
        KeyCode::Char(letter) => {
            if let Some(sort) = Sort::of_key(letter) {
                screen.sort = sort;
            }
        }
        _ => {}
    }
    Wish::GoOn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_and_q_quits() {
        let mut screen = Screen::default();
        let press = |code, modifiers| KeyEvent::new(code, modifiers);
        let plain = |letter| press(KeyCode::Char(letter), KeyModifiers::NONE);
        for (letter, sort) in [
            ('n', Sort::Name),
            ('r', Sort::Rate),
            ('p', Sort::Slow),
            ('f', Sort::Faults),
            ('w', Sort::Worst),
        ] {
            assert_eq!(obey(plain(letter), &mut screen), Wish::GoOn);
            assert_eq!(screen.sort, sort);
        }
        for key in [
            plain('c'),
            plain('x'),
            press(KeyCode::Enter, KeyModifiers::NONE),
        ] {
            assert_eq!(obey(key, &mut screen), Wish::GoOn);
        }
        assert_eq!(screen.sort, Sort::Worst);
        for key in [
            plain('q'),
            press(KeyCode::Esc, KeyModifiers::NONE),
            press(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(obey(key, &mut screen), Wish::Quit);
        }
    }
}
