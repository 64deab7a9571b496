//! A login from this very process, for a command that measures a token without a host: under the same
//! governor, so that a PIN that was refused anywhere is not tried here either.

use std::path::Path;

use bytes::Bytes;

use crate::{
    proto::host::{Failed, PinsRead, TokenFound},
    token::{
        host::{
            pin::{LoginGovernor, NoLogin},
            process::HostExit,
        },
        settings::{Login, Settings},
    },
};

/// Logs in once, if the governor lets it. `read_pins` fingerprints the PINs with the salts that it is
/// given; `log_in` calls C_Login with the one of this index.
///
/// # Errors
/// Why nobody logged in, in words: the PIN was refused, now or before, or the attempt cannot be noted.
pub async fn log_in_here<T>(
    state_dir: &Path,
    settings: &Settings,
    found: &TokenFound,
    token: &mut T,
    read_pins: impl FnOnce(&mut T, &[Bytes]) -> PinsRead,
    log_in: impl FnOnce(&mut T, u32) -> Result<(), Failed>,
) -> Result<(), String> {
    if settings.login() == Login::None {
        return log_in(token, 0).map_err(|failed| HostExit::of_start(failed).reason);
    }
    let said = |no_login| match no_login {
        NoLogin::Refused(reason) | NoLogin::Unwritable(reason) | NoLogin::NoPin(reason) => reason,
    };
    let pin_files = settings.pin_files().cloned().collect();
    let governor = LoginGovernor::new(state_dir, &settings.name, pin_files);
    governor.refusal();
    let mut turn = governor
        .turn(found, settings.start_timeout)
        .await
        .map_err(said)?;
    let pins = read_pins(token, &turn.salts());
    let pin = turn.choose(&pins).map_err(said)?;
    turn.begin().await.map_err(said)?;
    match log_in(token, pin) {
        Ok(()) => {
            turn.succeeded().await;
            Ok(())
        }
        Err(failed) => {
            let login = failed.login;
            let answer = HostExit::of_start(failed).reason;
            let refused = turn.failed(&answer, login.as_ref()).await;
            Err(refused.unwrap_or(answer))
        }
    }
}
