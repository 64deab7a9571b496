//! A tree's size and root as text: the body of a C2SP checkpoint (<https://c2sp.org/tlog-checkpoint>), three lines:
//! which log, how many leaves, the root in base64. It is not signed.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::merkle::Hash;

/// How the log was at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// RFC 6962's root of them.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = STANDARD.encode(self.root);
        writeln!(f, "{}\n{}\n{root}", self.origin, self.size)
    }
}

impl FromStr for Checkpoint {
    type Err = String;

    /// What stands after the third line, extensions and signatures, is not looked at.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err("a checkpoint has three lines: log, size, root".to_owned());
        };
        // A number has one form.
        let number = size
            .parse()
            .ok()
            .filter(|number: &u64| number.to_string() == size);
        let number =
            number.ok_or_else(|| format!("the checkpoint's size {size:?} is no number"))?;
        let root = STANDARD
            .decode(root)
            .ok()
            .and_then(|root| root.try_into().ok());
        Ok(Self {
            origin: origin.to_owned(),
            size: number,
            root: root.ok_or("the checkpoint's root is not 32 bytes in base64")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_three_lines_and_is_read_back() {
        let one = Checkpoint {
            origin: "hsmac/audit/1".into(),
            size: 20,
            root: [7; 32],
        };
        let text = one.to_string();
        assert_eq!(
            text,
            "hsmac/audit/1\n20\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"
        );
        assert_eq!(text.parse(), Ok(one.clone()));
        assert_eq!(format!("{text}\n— name sig\n").parse(), Ok(one));
        for wrong in [
            "",
            "a\n1",
            "a\n01\nBwc=",
            "a\n-1\nBwc=",
            "a\n1\nBwc=",
            "a\n1\n%",
        ] {
            assert!(wrong.parse::<Checkpoint>().is_err(), "{wrong}");
        }
    }
}
