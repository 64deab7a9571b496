//! What the vendor library prints, less the PIN.
//!
//! Standard output and error become a pipe within this process. A thread reads it, takes out what looks
//! like the PIN, and passes the rest on to the front's pipes, which end in its log. A crash may cost the
//! last line that the library printed.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::stdio::{dup2_stderr, dup2_stdout};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{TIDY, UNPOISONED};
use crate::model::encode_hex;

/// The longest line that is held until its end, in bytes.
const LONGEST_LINE: usize = 8 * 1024;
/// Stands where a PIN was.
const HIDDEN: &[u8] = b"[PIN]";

/// Takes PINs out of what this process prints.
pub(super) struct OutputFilter {
    secrets: Arc<Mutex<Secrets>>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    threads: Vec<JoinHandle<()>>,
}

/// Forms of the PINs that are looked for.
#[derive(Default)]
struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl OutputFilter {
    /// Puts itself between this process and its standard output and error.
    ///
    /// # Errors
    /// The kernel gives no pipe.
    pub(super) fn install() -> io::Result<Self> {
        let secrets = Arc::<Mutex<Secrets>>::default();
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let (read_out, write_out) = io::pipe()?;
        let (read_err, write_err) = io::pipe()?;
        dup2_stdout(&write_out)?;
        dup2_stderr(&write_err)?;
        let mut threads = Vec::new();
        for (pipe, out) in [(read_out, &stdout), (read_err, &stderr)] {
            let mut pipe = File::from(OwnedFd::from(pipe));
            let mut out = File::from(out.try_clone()?);
            let secrets = Arc::clone(&secrets);
            threads.push(
                thread::Builder::new()
                    .name("output".into())
                    .spawn(move || pass_on(&mut pipe, &mut out, &secrets))?,
            );
        }
        Ok(Self {
            secrets,
            stdout,
            stderr,
            threads,
        })
    }

    /// Hides these PINs from now on.
    pub(super) fn hide(&self, pins: &[Arc<SecretString>]) {
        let mut secrets = self.secrets.lock().expect(UNPOISONED);
        for pin in pins {
            secrets.add(pin.expose_secret().as_bytes());
        }
    }
}

impl Drop for OutputFilter {
    /// Gives the process its own output back, when what was printed has been passed on.
    fn drop(&mut self) {
        // With the last write end the threads find the end of their pipes; a library that gave one
        // to a process of its own is not waited for.
        let restored = dup2_stdout(&self.stdout).and_then(|()| dup2_stderr(&self.stderr));
        let until = Instant::now() + TIDY;
        while restored.is_ok()
            && Instant::now() < until
            && !self.threads.iter().all(JoinHandle::is_finished)
        {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Secrets {
    /// The PIN as it is, and as dumps show it: hex digits with and without blanks, and base64.
    fn add(&mut self, pin: &[u8]) {
        let hex = Zeroizing::new(encode_hex(pin));
        let spaced: Vec<&str> = (0..hex.len())
            .step_by(2)
            .map(|at| &hex[at..at + 2])
            .collect();
        let spaced = Zeroizing::new(spaced.join(" "));
        let forms = [
            pin.to_vec(),
            hex.to_uppercase().into_bytes(),
            spaced.to_uppercase().into_bytes(),
            hex.as_bytes().to_vec(),
            spaced.as_bytes().to_vec(),
            STANDARD.encode(pin).into_bytes(),
        ];
        self.0.extend(forms.map(Zeroizing::new));
    }

    /// A line without the PINs.
    fn hidden(&self, line: &[u8]) -> Vec<u8> {
        let mut line = line.to_vec();
        for secret in &self.0 {
            let mut from = 0;
            while let Some(at) = find(&line[from..], secret) {
                let at = from + at;
                line.splice(at..at + secret.len(), HIDDEN.iter().copied());
                from = at + HIDDEN.len();
            }
        }
        line
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len().max(1))
        .position(|window| window == wanted)
}

fn pass_on(pipe: &mut File, out: &mut File, secrets: &Mutex<Secrets>) {
    let mut held = Zeroizing::new(Vec::with_capacity(2 * LONGEST_LINE));
    let mut chunk = Zeroizing::new([0; LONGEST_LINE]);
    loop {
        let length = match pipe.read(&mut chunk[..]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        held.extend_from_slice(&chunk[..length]);
        // Whole lines, so that no PIN is cut in two; what has no end yet waits for it.
        let whole = match held.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if length == 0 || held.len() >= LONGEST_LINE => held.len(),
            None => 0,
        };
        let line = secrets.lock().expect(UNPOISONED).hidden(&held[..whole]);
        // A front that is gone is the watching thread's business.
        let _ = out.write_all(&line);
        held.drain(..whole);
        if length == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Security: none of the forms in which libraries print a PIN is passed on.
    #[test]
    fn a_pin_that_a_module_prints_is_hidden_in_each_form() {
        let mut secrets = Secrets::default();
        secrets.add(b"73219846");
        secrets.add(b"no");
        let line =
            b"C_Login 73219846 (37 33 32 31 39 38 34 36; 3733323139383436), NzMyMTk4NDY=, no\n";
        let hidden = String::from_utf8(secrets.hidden(line)).unwrap();
        assert_eq!(hidden, "C_Login [PIN] ([PIN]; [PIN]), [PIN], [PIN]\n");
        assert_eq!(secrets.hidden(b"nothing of it\n"), b"[PIN]thing of it\n");
    }
}
