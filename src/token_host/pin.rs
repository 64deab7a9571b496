//! PIN files: what is in them, and fingerprints that tell one content from another without showing it.

use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::error::{Class, HostError};
use crate::proto::host::{LoginMode, Pin, PinsRead, Settings};

/// The longest PIN file, in bytes.
const MAX_PIN: usize = 1024;
/// What Argon2id costs: memory in KiB, and passes over it. Who has read a marker needs so much for each
/// PIN that they guess, and a host so much at its start.
const MEMORY: u32 = 8 * 1024;
const PASSES: u32 = 3;
/// Stands for the PIN that a person enters at the token, which nobody here sees.
const PROTECTED_PATH: &str = "protected authentication path";

/// The PINs that this host may be told to log in with, in the order of the settings.
#[derive(Default)]
pub(super) struct Pins(Vec<Option<Arc<SecretString>>>);

impl Pins {
    /// Reads the PIN files once: what is fingerprinted here is what C_Login gets, whatever happens to
    /// the files meanwhile.
    pub(super) fn read(settings: &Settings, salts: &[impl AsRef<[u8]>]) -> (Self, PinsRead) {
        let read: Vec<Result<SecretString, HostError>> =
            if settings.login() == LoginMode::ProtectedPath {
                vec![Ok(SecretString::from(PROTECTED_PATH))]
            } else {
                let files = settings.pin_files.iter();
                files.map(|file| read_pin(Path::new(file))).collect()
            };
        let mut pins = Self::default();
        let mut told = PinsRead::default();
        for pin in read {
            let pin = pin.and_then(|pin| Ok((fingerprints(&pin, salts)?, pin)));
            let (pin, told_of_it) = match pin {
                Ok((fingerprints, pin)) => (
                    Some(Arc::new(pin)),
                    Pin {
                        fingerprints,
                        fault: String::new(),
                    },
                ),
                Err(error) => (
                    None,
                    Pin {
                        fingerprints: Vec::new(),
                        fault: error.to_string(),
                    },
                ),
            };
            pins.0.push(pin);
            told.pins.push(told_of_it);
        }
        (pins, told)
    }

    /// One of the PINs, if its file held one.
    pub(super) fn pin(&self, index: u32) -> Option<&SecretString> {
        self.0.get(index as usize)?.as_deref()
    }

    /// All of them, for who must keep them out of the log.
    pub(super) fn all(&self) -> Vec<Arc<SecretString>> {
        self.0.iter().flatten().cloned().collect()
    }
}

/// Security: Argon2id with a random salt, so that the marker of an attempt on disk gives the PIN to
/// nobody who cannot try billions of them.
fn fingerprints(
    pin: &SecretString,
    salts: &[impl AsRef<[u8]>],
) -> Result<Vec<bytes::Bytes>, HostError> {
    let failed = |error: argon2::Error| HostError::new(Class::Bug, format!("Argon2id: {error}"));
    let params = Params::new(MEMORY, PASSES, 1, Some(32)).map_err(failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let fingerprint = |salt: &_| {
        let mut digest = [0; 32];
        let pin = pin.expose_secret().as_bytes();
        argon2
            .hash_password_into(pin, AsRef::<[u8]>::as_ref(salt), &mut digest)
            .map_err(failed)?;
        Ok(digest.to_vec().into())
    };
    salts.iter().map(fingerprint).collect()
}

/// Reads the PIN, less one trailing newline, through a buffer that is wiped.
///
/// # Errors
/// `Configuration`: the file cannot be read, or does not hold one line that is a PIN.
pub(super) fn read_pin(path: &Path) -> Result<SecretString, HostError> {
    // Security: no copy of the PIN outlives this function but the one that wipes itself; a buffer
    // that never grows leaves none behind.
    let fault =
        |what: &str| HostError::new(Class::Configuration, format!("{}: {what}", path.display()));
    let mut buffer = Zeroizing::new([0_u8; MAX_PIN + 1]);
    let mut file = File::open(path).map_err(|error| fault(&error.to_string()))?;
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) => return Err(fault(&error.to_string())),
        }
    }
    if length > MAX_PIN {
        return Err(fault("the PIN file is longer than 1,024 bytes"));
    }
    let pin = str::from_utf8(&buffer[..length]).map_err(|_| fault("the PIN is not UTF-8"))?;
    let pin = pin.strip_suffix('\n').unwrap_or(pin);
    let pin = pin.strip_suffix('\r').unwrap_or(pin);
    if pin.is_empty() {
        return Err(fault("the PIN file is empty"));
    }
    // Security: a token would judge the whole of it, and count it as a wrong PIN.
    if pin.contains(['\n', '\r']) {
        return Err(fault("the PIN file has more than one line"));
    }
    Ok(SecretString::from(pin))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(files: &[&Path]) -> Settings {
        Settings {
            login: LoginMode::Pin.into(),
            pin_files: files
                .iter()
                .map(|file| file.display().to_string())
                .collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn a_pin_file_has_one_line_and_is_told_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let one = file("one", "123456\n");
        let same = file("same", "123456");
        let other = file("other", "1234567\n");
        let two_lines = file("two", "123456\n123457\n");
        let empty = file("empty", "\n");
        let gone = dir.path().join("gone");
        let files = [&one, &same, &other, &two_lines, &empty, &gone].map(|path| path.as_path());
        let (pins, told) = Pins::read(&settings(&files), &[[1; 16], [2; 16]]);
        let told = told.pins;
        assert_eq!(told[0], told[1], "the newline is none of the PIN");
        assert_ne!(told[0].fingerprints, told[2].fingerprints);
        assert_ne!(told[0].fingerprints[0], told[0].fingerprints[1]);
        for (index, said) in [(3, "more than one line"), (4, "empty"), (5, "gone")] {
            assert!(told[index].fault.contains(said), "{:?}", told[index]);
            assert!(told[index].fingerprints.is_empty());
            assert!(pins.pin(u32::try_from(index).unwrap()).is_none());
        }
        assert_eq!(pins.pin(0).unwrap().expose_secret(), "123456");
        assert_eq!(pins.all().len(), 3);
        // Security: what crosses the socket is no PIN.
        assert!(!format!("{told:?}").contains("123456"));
    }
}
