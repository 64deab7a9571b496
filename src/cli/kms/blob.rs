//! Blobs on the command line: text, base64 or files.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// A message: a text, not decoded (like AWS CLI version 1), or a file.
pub(super) fn message(text: &str) -> Result<Bytes, String> {
    Ok(file(text)?.unwrap_or_else(|| Bytes::copy_from_slice(text.as_bytes())))
}

/// A MAC: base64, so that what generate-mac printed can be pasted, or a file with its bytes.
pub(super) fn mac(text: &str) -> Result<Bytes, String> {
    match file(text)? {
        Some(bytes) => Ok(bytes),
        None => STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| format!("it is no base64 ({error}); for a file write fileb://PATH")),
    }
}

/// A document: the text, or what a file has.
pub(super) fn document(text: &str) -> Result<String, String> {
    match file(text)? {
        None => Ok(text.to_owned()),
        Some(bytes) => String::from_utf8(bytes.to_vec())
            .map_err(|_| format!("{text}: the document is not UTF-8")),
    }
}

fn file(text: &str) -> Result<Option<Bytes>, String> {
    text.strip_prefix("fileb://")
        .or_else(|| text.strip_prefix("file://"))
        .map(|path| {
            fs::read(path)
                .map(Bytes::from)
                .map_err(|error| format!("{path}: {error}"))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_a_mac_is_base64() {
        assert_eq!(message("aGk="), Ok(Bytes::from_static(b"aGk=")));
        assert_eq!(mac("aGk="), Ok(Bytes::from_static(b"hi")));
        assert!(mac("a?").unwrap_err().contains("no base64"));
    }

    #[test]
    fn files_are_read_as_bytes() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("m");
        fs::write(&path, b"\x00\xff\n").unwrap();
        for scheme in ["file", "fileb"] {
            let text = format!("{scheme}://{}", path.display());
            assert_eq!(message(&text), Ok(Bytes::from_static(b"\x00\xff\n")));
            assert_eq!(mac(&text), Ok(Bytes::from_static(b"\x00\xff\n")));
        }
        assert!(
            message("fileb:///nowhere/m")
                .unwrap_err()
                .starts_with("/nowhere/m: ")
        );
    }
}
