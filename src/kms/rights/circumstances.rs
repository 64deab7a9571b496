//! What conditions ask for: of the request, its caller, its key, and the time.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    kms::{Kms, Record},
    model::{
        Caller, KeySpec, KeyUsage, MacAlgorithm, Origin, Tags,
        policy::{Context, ContextKey, Values},
    },
};

/// What a request says besides its key, as far as conditions ask for it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kms) struct Asks<'a> {
    /// The key as the request names it.
    pub(in crate::kms) key_id: Option<&'a str>,
    pub(in crate::kms) grant_tokens: &'a [String],
    pub(in crate::kms) mac_algorithm: Option<MacAlgorithm>,
    pub(in crate::kms) tags: Option<&'a Tags>,
    pub(in crate::kms) tag_keys: Option<&'a [String]>,
    pub(in crate::kms) pending_window_in_days: Option<u32>,
    /// CreateKey: of the key that is to be.
    pub(in crate::kms) new_key: Option<KeySpec>,
    pub(in crate::kms) policy_name: Option<&'a str>,
    pub(in crate::kms) bypass_lockout_check: Option<bool>,
    /// When, in seconds since 1970; now, if absent.
    pub(in crate::kms) at: Option<u64>,
}

/// Where conditions get their values from.
pub(super) struct Circumstances<'a> {
    pub(super) kms: &'a Kms,
    pub(super) caller: &'a Caller,
    pub(super) record: Option<&'a Record>,
    pub(super) asks: &'a Asks<'a>,
}

impl Context for Circumstances<'_> {
    fn values(&self, key: &ContextKey) -> Values {
        let one = |value: Option<String>| value.map_or(Values::Absent, Values::One);
        let named = |value: Option<&str>| one(value.map(str::to_owned));
        let asks = self.asks;
        let spec = self.record.map(|record| record.body.spec).or(asks.new_key);
        match key {
            // Date operators read both forms of a time.
            ContextKey::CurrentTime | ContextKey::EpochTime => {
                one(Some(asks.at.unwrap_or_else(seconds).to_string()))
            }
            ContextKey::PrincipalAccount | ContextKey::CallerAccount => {
                named(Some(self.caller.account().as_str()))
            }
            ContextKey::PrincipalArn => named(Some(self.caller.arn())),
            ContextKey::ResourceTag(name) => {
                named(self.record.and_then(|record| tag(&record.body.tags, name)))
            }
            ContextKey::RequestTag(name) => named(asks.tags.and_then(|tags| tag(tags, name))),
            ContextKey::TagKeys => match (asks.tags, asks.tag_keys) {
                (Some(tags), _) => Values::Several(
                    tags.as_slice()
                        .iter()
                        .map(|tag| tag.key().to_owned())
                        .collect(),
                ),
                (None, Some(keys)) => Values::Several(keys.to_vec()),
                (None, None) => Values::Absent,
            },
            ContextKey::SecureTransport => one(Some(self.caller.is_over_tls().to_string())),
            ContextKey::KeyOrigin => named(match self.record {
                Some(record) => Some(record.body.origin.name()),
                None => asks.new_key.map(|_| Origin::AwsKms.name()),
            }),
            ContextKey::KeySpec => named(spec.map(KeySpec::name)),
            ContextKey::KeyUsage => named(spec.map(|_| KeyUsage::GenerateVerifyMac.name())),
            ContextKey::MacAlgorithm => named(asks.mac_algorithm.map(MacAlgorithm::name)),
            ContextKey::MultiRegion => named(spec.map(|_| "false")),
            ContextKey::PolicyName => named(asks.policy_name),
            ContextKey::BypassPolicyLockoutSafetyCheck => {
                one(asks.bypass_lockout_check.map(|bypass| bypass.to_string()))
            }
            ContextKey::ScheduleKeyDeletionPendingWindowInDays => {
                one(asks.pending_window_in_days.map(|days| days.to_string()))
            }
            ContextKey::RequestAlias => one(asks.key_id.and_then(alias_in).map(str::to_owned)),
            ContextKey::ResourceAliases => match self.record {
                Some(record) => Values::Several(
                    self.kms
                        .catalogue
                        .aliases_of(&record.body.account, &record.body.key_id)
                        .into_iter()
                        .map(|(name, _)| name.to_string())
                        .collect(),
                ),
                None => Values::Absent,
            },
            // No AWS service calls in a principal's place here.
            ContextKey::ViaService => Values::Absent,
        }
    }
}

/// The value of a tag, whose name conditions compare in small letters.
fn tag<'a>(tags: &'a Tags, name: &str) -> Option<&'a str> {
    let tag = tags
        .as_slice()
        .iter()
        .find(|tag| tag.key().eq_ignore_ascii_case(name))?;
    Some(tag.value())
}

/// `alias/…` in an alias name or alias ARN.
fn alias_in(key_id: &str) -> Option<&str> {
    if key_id.starts_with("alias/") {
        return Some(key_id);
    }
    let resource = key_id.splitn(6, ':').nth(5)?;
    resource.starts_with("alias/").then_some(resource)
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
