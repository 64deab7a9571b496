//! Keys that are there from the start, for development: fixed IDs, names, given material.

use std::{collections::BTreeMap, time::Instant};

use zeroize::Zeroizing;

use crate::{
    error::{Error, Kind},
    kms::{
        catalogue::{Source, stored::StoredState},
        lifecycle::{Creation, NewKey, create},
        operations::{CreateAlias, TagResource, UpdateAlias, UpdateKeyDescription},
        service::Kms,
    },
    model::{AliasName, Caller, Description, KeyId, KeySpec, Tags},
};

/// A key as it shall be.
#[derive(Clone)]
pub struct Seed {
    /// Its fixed ID.
    pub key_id: KeyId,
    /// Its length and algorithm.
    pub spec: KeySpec,
    /// Names that find it.
    pub aliases: Vec<AliasName>,
    /// For people.
    pub description: Description,
    /// Tags that it has, besides others.
    pub tags: Tags,
    /// The secret; without it the token makes one.
    pub material: Option<Zeroizing<Vec<u8>>>,
}

impl Kms {
    /// Makes a key as a seed says, or brings the one that is there to it. True if it is new.
    ///
    /// # Errors
    /// The key is there with another spec, other material, or on its way out; those of CreateKey,
    /// CreateAlias, UpdateAlias, UpdateKeyDescription and TagResource.
    pub async fn seed(&self, caller: &Caller, seed: Seed, until: Instant) -> Result<bool, Error> {
        let key_id = seed.key_id.as_str().to_owned();
        let contradicts = |what: &str| Error::new(Kind::AlreadyExists, format!("{key_id} {what}"));
        // The same HMAC (RFC 2104 pads with zeros), and tokens want a digest's length at least.
        let material = seed.material.map(|mut material| {
            let length = material.len().max(seed.spec.mac_algorithm().mac_len());
            let mut padded = Zeroizing::new(vec![0; length]);
            padded[..material.len()].copy_from_slice(&material);
            material.clear();
            padded
        });
        let new = NewKey {
            policy_principals: BTreeMap::new(),
            account: caller.account().clone(),
            spec: seed.spec,
            description: seed.description.clone(),
            tags: seed.tags.clone(),
            policy: String::new(),
        };
        let there = self.catalogue.record(caller.account(), &seed.key_id);
        let made = there.is_none();
        match there {
            None => {
                create(self.lifecycle()?, new, seed.key_id.clone(), material, until).await?;
            }
            Some(record) if record.source == Source::Declared => {
                return Err(contradicts("is declared in the configuration"));
            }
            Some(record) if record.body.spec != seed.spec => {
                return Err(contradicts(&format!(
                    "is there with the key spec {}",
                    record.body.spec
                )));
            }
            Some(record) => {
                if !matches!(
                    record.body.state,
                    StoredState::Enabled | StoredState::Disabled
                ) {
                    return Err(contradicts("is there and will be deleted"));
                }
                if material.is_some() {
                    // The token alone can tell: the material becomes a key once more, makes its check
                    // value, and goes the way of every creation that comes to nothing.
                    let mut again =
                        Creation::new(self.lifecycle()?, new, seed.key_id.clone(), material)?;
                    let (_, facts) = again.make(until).await?;
                    if Some(&facts.check_value) != record.body.check_value.as_ref() {
                        return Err(contradicts("is there with other material"));
                    }
                }
                if record.body.description != seed.description {
                    let asked = UpdateKeyDescription {
                        key_id: Some(key_id.clone()),
                        description: Some(seed.description.as_str().to_owned()),
                    };
                    self.update_key_description(caller, asked, until).await?;
                }
                let tags = seed.tags.as_slice().iter();
                let tags: Vec<_> = tags
                    .filter(|tag| !record.body.tags.as_slice().contains(tag))
                    .map(|tag| (Some(tag.key().to_owned()), Some(tag.value().to_owned())))
                    .collect();
                if !tags.is_empty() {
                    let asked = TagResource {
                        key_id: Some(key_id.clone()),
                        tags: Some(tags),
                    };
                    self.tag_resource(caller, asked, until).await?;
                }
            }
        }
        for alias in seed.aliases {
            let (alias_name, target_key_id) = (Some(alias.to_string()), Some(key_id.clone()));
            match self.catalogue.alias(caller, &alias) {
                Some(known) if known.target.as_ref() == Some(&seed.key_id) => {}
                Some(_) => {
                    let asked = UpdateAlias {
                        alias_name,
                        target_key_id,
                    };
                    self.update_alias(caller, &asked, until).await?;
                }
                None => {
                    let asked = CreateAlias {
                        alias_name,
                        target_key_id,
                    };
                    self.create_alias(caller, &asked, until).await?;
                }
            }
        }
        Ok(made)
    }
}
