//! Markers of lists. One says after what a page begins, not at which number, so that what comes or
//! goes between two pages neither hides nor repeats others.

use std::{fmt::Display, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::error::{Error, Kind};

/// `list` tells one list's markers from another's.
pub(in crate::kms) fn write(list: &str, last: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}{last}"))
}

/// What the page before ended with.
///
/// # Errors
/// The marker is none of this list's.
pub(in crate::kms) fn read<T: FromStr>(list: &str, marker: &str) -> Result<T, Error> {
    URL_SAFE_NO_PAD
        .decode(marker)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix(list)?.parse().ok())
        .ok_or_else(|| Error::new(Kind::InvalidMarker, ""))
}

/// For lists that always fit on one page.
///
/// # Errors
/// Nothing comes after that page, so nobody was given a marker.
pub(in crate::kms) fn only_page(marker: Option<&str>) -> Result<(), Error> {
    match marker {
        None => Ok(()),
        Some(_) => Err(Error::new(Kind::InvalidMarker, "")),
    }
}
