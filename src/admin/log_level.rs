//! The level of the log: what it is, and another one for a time.
//!
//! `GET /log-level` says what counts. `PUT /log-level?level=debug&seconds=600` sets another level, which ends
//! by itself; `DELETE /log-level` ends it now. At the socket alone: over TCP nobody proves who they are.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::http::{TEXT, response, text};
use crate::telemetry::{self, Level};

pub(super) const PATH: &str = "/log-level";

/// A level that somebody forgets must not fill a disk.
const LONGEST: Duration = Duration::from_hours(24);
/// How long a level counts, if nobody says.
const USUAL: Duration = Duration::from_mins(10);

pub(super) fn answer<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::PUT => match Wanted::read(request.uri().query().unwrap_or_default()) {
            Ok(wanted) => wanted.set(),
            Err(reason) => {
                return response(StatusCode::BAD_REQUEST, TEXT, format!("{reason}\n"));
            }
        },
        Method::DELETE => telemetry::end_any(),
        _ => {
            let mut refusal = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET, HEAD, PUT and DELETE only\n",
            );
            let allowed = HeaderValue::from_static("GET, HEAD, PUT, DELETE");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return refusal;
        }
    }
    let Some(now) = telemetry::in_force() else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "this process does not log\n",
        );
    };
    let body = json!({
        "level": now.level.to_string(),
        "configured": now.configured.to_string(),
        // Rounded up: while the level counts, this is not 0.
        "seconds_left": now.left.map(|left| left.as_millis().div_ceil(1000)),
    });
    response(StatusCode::OK, "application/json", format!("{body}\n"))
}

/// A level for a time.
struct Wanted {
    level: Level,
    time: Duration,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, String> {
        let (mut level, mut time) = (None, USUAL);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = percent_decode_str(value).decode_utf8_lossy();
            match name {
                "level" => level = Some(Level::try_from(value.into_owned())?),
                "seconds" => {
                    let seconds: u64 = value
                        .parse()
                        .map_err(|_| format!("seconds: {value:?} is no whole number"))?;
                    time = Duration::from_secs(seconds);
                }
                _ => return Err(format!("{name:?}: there are level and seconds")),
            }
        }
        let level = level.ok_or("level is missing: PUT /log-level?level=debug&seconds=600")?;
        if time.is_zero() || time > LONGEST {
            return Err("seconds: from 1 to 86400".to_owned());
        }
        Ok(Self { level, time })
    }

    /// Its end is waited for by the runtime that answers operators, which runs while callers are stuck.
    fn set(self) {
        let set = telemetry::set_for(self.level, self.time);
        tokio::spawn(async move {
            tokio::time::sleep(self.time).await;
            telemetry::end(set);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_a_level_and_a_time_within_bounds() {
        let read =
            |query| Wanted::read(query).map(|wanted| (wanted.level.to_string(), wanted.time));
        assert_eq!(
            read("level=info%2Chsmac::token%3Ddebug&seconds=60"),
            Ok((
                "info,hsmac::token=debug".to_owned(),
                Duration::from_secs(60)
            ))
        );
        assert_eq!(read("level=debug"), Ok(("debug".to_owned(), USUAL)));
        for (wrong, said) in [
            ("", "level is missing"),
            ("level=warning", "did you mean warn?"),
            ("level=debug&seconds=soon", "\"soon\" is no whole number"),
            ("level=debug&seconds=0", "from 1 to 86400"),
            ("level=debug&seconds=86401", "from 1 to 86400"),
            ("level=debug&for=1h", "there are level and seconds"),
        ] {
            let reason = read(wrong).unwrap_err();
            assert!(reason.contains(said), "{wrong}: {reason}");
        }
    }
}
