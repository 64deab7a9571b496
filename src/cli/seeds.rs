//! `hsmac dev --seed FILE`: keys that are made at the first start.
//!
//! ```toml
//! [[key]]
//! key_id = "11111111-2222-4333-8444-555555555555"
//! key_spec = "HMAC_256"
//! aliases = ["alias/payments"]             # may be left out, as all below
//! description = "signs payments"
//! tags = { team = "billing" }
//! material_hex = "6b6579…"                 # or material_base64; without it the token makes the key
//! ```

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use toml_edit::{Document, Item, TableLike};
use zeroize::Zeroizing;

use super::CliError;
use crate::{
    config::line_of,
    kms::Seed,
    model::{AliasName, Description, Tag, Tags, decode_hex},
};

/// The longest given secret, in bytes.
const LONGEST: usize = 512;

const FIELDS: [&str; 7] = [
    "key_id",
    "key_spec",
    "aliases",
    "description",
    "tags",
    "material_hex",
    "material_base64",
];

/// Reads the seeds of a file.
pub(super) fn read(file: &Path) -> Result<Vec<Seed>, CliError> {
    let text = fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|error| CliError::Usage(format!("--seed {}: {error}", file.display())))?;
    parse(&text).map_err(|(line, what)| {
        CliError::Config(format!("hsmac: {}:{line}: {what}", file.display()))
    })
}

/// A line, and what is wrong there. No value is repeated: it may be key material.
type SeedFault = (usize, String);

fn parse(text: &str) -> Result<Vec<Seed>, SeedFault> {
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line_of(text, at), error.message().replace('\n', "; "))
    })?;
    let mut seeds = Vec::<Seed>::new();
    for (name, item) in document.as_table().iter() {
        let line = line_of(text, item.span().map_or(0, |span| span.start));
        let Some(keys) = item.as_array_of_tables().filter(|_| name == "key") else {
            return Err((
                line,
                format!("{name}: a seed file has [[key]] and nothing else"),
            ));
        };
        for (index, table) in keys.iter().enumerate() {
            let at = table.span().map_or(0, |span| span.start);
            let fields = Fields {
                text,
                table,
                line: line_of(text, at),
                path: format!("key[{index}]"),
            };
            let seed = fields.seed()?;
            if seeds.iter().any(|other| other.key_id == seed.key_id) {
                return Err(fields.wrong("key_id", "a key before has it too"));
            }
            seeds.push(seed);
        }
    }
    Ok(seeds)
}

struct Fields<'a> {
    text: &'a str,
    table: &'a dyn TableLike,
    line: usize,
    path: String,
}

impl Fields<'_> {
    fn seed(&self) -> Result<Seed, SeedFault> {
        for (name, _) in self.table.iter() {
            if !FIELDS.contains(&name) {
                let known = FIELDS.join(", ");
                return Err(self.wrong(name, &format!("no such field; there are {known}")));
            }
        }
        let required = |name: &str| {
            self.text_of(name)?
                .ok_or_else(|| self.wrong(name, "required, but not there"))
        };
        let mut aliases = Vec::new();
        if let Some(list) = self.table.get("aliases") {
            let list = list
                .as_array()
                .ok_or_else(|| self.wrong("aliases", "it must be a list of texts"))?;
            for alias in list {
                let name: Option<AliasName> = alias.as_str().and_then(|text| text.parse().ok());
                aliases.push(name.ok_or_else(|| {
                    self.wrong("aliases", "each must be alias/ and letters, digits, /, _ or -; at most 256 characters, and not begin with alias/aws/")
                })?);
            }
        }
        let description = self.text_of("description")?.unwrap_or_default();
        Ok(Seed {
            key_id: required("key_id")?
                .parse()
                .map_err(|fault: String| self.wrong("key_id", &fault))?,
            spec: required("key_spec")?
                .parse()
                .map_err(|fault: String| self.wrong("key_spec", &fault))?,
            aliases,
            description: Description::new(description.to_owned())
                .ok_or_else(|| self.wrong("description", "it is longer than 8192 characters"))?,
            tags: self.tags()?,
            material: self.material()?,
        })
    }

    fn tags(&self) -> Result<Tags, SeedFault> {
        let Some(item) = self.table.get("tags") else {
            return Ok(Tags::default());
        };
        let wrong = |what: &str| self.wrong("tags", what);
        let table = item
            .as_table_like()
            .ok_or_else(|| wrong("it must be a table of texts"))?;
        let mut tags = Vec::new();
        for (key, value) in table.iter() {
            let value = value
                .as_str()
                .ok_or_else(|| wrong("it must be a table of texts"))?;
            let tag = Tag::new(key.to_owned(), value.to_owned()).map_err(|_| {
                wrong("a tag has a key of 1 to 128 characters, not beginning with aws:, and a value of at most 256")
            })?;
            tags.push(tag);
        }
        Tags::new(tags).map_err(|_| wrong("a key has at most 50 tags"))
    }

    fn material(&self) -> Result<Option<Zeroizing<Vec<u8>>>, SeedFault> {
        let (name, bytes) = match (
            self.text_of("material_hex")?,
            self.text_of("material_base64")?,
        ) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(self.wrong("material_hex", "there is material_base64 too"));
            }
            (Some(hex), None) => ("material_hex", decode_hex(hex)),
            (None, Some(text)) => ("material_base64", BASE64_STANDARD.decode(text).ok()),
        };
        let bytes = bytes
            .map(Zeroizing::new)
            .ok_or_else(|| self.wrong(name, "it cannot be decoded"))?;
        if !(1..=LONGEST).contains(&bytes.len()) {
            return Err(self.wrong(name, &format!("it must be 1 to {LONGEST} bytes")));
        }
        Ok(Some(bytes))
    }

    fn text_of(&self, name: &str) -> Result<Option<&str>, SeedFault> {
        self.table
            .get(name)
            .map(|item| {
                item.as_str()
                    .ok_or_else(|| self.wrong(name, "it must be a text"))
            })
            .transpose()
    }

    fn wrong(&self, name: &str, what: &str) -> SeedFault {
        let key = self.table.key(name).and_then(toml_edit::Key::span);
        let span = key.or_else(|| self.table.get(name).and_then(Item::span));
        let line = span.map_or(self.line, |span| line_of(self.text, span.start));
        (line, format!("{}.{name}: {what}", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# seeds\n[[key]]\nkey_id = \"11111111-2222-4333-8444-555555555555\"\nkey_spec = \"HMAC_256\"\naliases = [\"alias/a\", \"alias/b\"]\ntags = { team = \"billing\" }\nmaterial_hex = \"6b6579\"\n";

    fn wrong(from: &str, to: &str) -> String {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        let (line, what) = parse(&text).err().unwrap();
        format!("{line}: {what}")
    }

    #[test]
    fn seeds_are_read_whole() {
        let seeds = parse(GOOD).unwrap();
        let [seed] = &seeds[..] else { panic!() };
        assert_eq!(seed.aliases.len(), 2);
        assert_eq!(seed.tags.as_slice().len(), 1);
        assert_eq!(**seed.material.as_ref().unwrap(), *b"key");
        let other = GOOD.replace("material_hex = \"6b6579\"", "material_base64 = \"a2V5\"");
        assert_eq!(
            **parse(&other).unwrap()[0].material.as_ref().unwrap(),
            *b"key"
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn a_seed_s_fault_has_line_and_field_and_no_material() {
        for (from, to, said) in [
            (
                "key_spec = \"HMAC_256\"\n",
                "",
                "2: key[0].key_spec: required",
            ),
            ("HMAC_256", "HMAC_1", "4: key[0].key_spec: "),
            ("11111111-", "x-", "3: key[0].key_id: "),
            ("\"alias/b\"", "\"b\"", "5: key[0].aliases: "),
            ("{ team = \"billing\" }", "7", "6: key[0].tags: "),
            (
                "6b6579",
                "6b657",
                "7: key[0].material_hex: it cannot be decoded",
            ),
            (
                "6b6579",
                "",
                "7: key[0].material_hex: it must be 1 to 512 bytes",
            ),
            (
                "material_hex",
                "material",
                "7: key[0].material: no such field",
            ),
            ("[[key]]", "[[keys]]", "2: keys: "),
            ("= \"6b6579\"", "\"6b6579\"", "7: "),
        ] {
            let told = wrong(from, to);
            assert!(told.starts_with(said), "{told}");
            assert!(!told.contains("6b65"), "{told}");
        }
        let twice = GOOD.to_owned() + GOOD;
        let (line, what) = parse(&twice).err().unwrap();
        assert_eq!(
            (line, what.as_str()),
            (10, "key[1].key_id: a key before has it too")
        );
    }
}
