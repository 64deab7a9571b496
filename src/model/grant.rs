//! Grants: who may do what with a key beside its policy, and for how far.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{AccountId, Caller, Date, Operation, decode_hex, encode_hex};

/// What a grant gives to whom (KMS: GrantListEntry, less its key and ID). A grant never changes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// For people, and so that a request that is sent again makes no second grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who may do it.
    pub grantee: GrantPrincipal,
    /// Who may retire the grant besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<GrantPrincipal>,
    /// What.
    pub operations: GrantOperations,
    /// The AWS resource for whose sake a service must ask (KMS: GrantConstraints, SourceArn).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_arn: Option<String>,
    /// The account of whoever made the grant.
    pub issuer: AccountId,
    /// The grant that let its maker make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<GrantId>,
    /// When it was made.
    pub created: Date,
}

impl Grant {
    /// Whether it allows an operation to a request for the sake of `source_arn`. A constraint that the
    /// request cannot meet makes the grant allow nothing.
    pub fn covers(&self, operation: Operation, source_arn: Option<&str>) -> bool {
        self.operations.contains(operation)
            && (self.source_arn.is_none() || self.source_arn.as_deref() == source_arn)
    }

    /// Whether who may make grants by this one may make one of these operations and this constraint:
    /// KMS's rule that it gives no more than its parent.
    pub fn is_wider_than(&self, operations: GrantOperations, source_arn: Option<&str>) -> bool {
        operations.is_subset_of(self.operations)
            && (self.source_arn.is_none() || self.source_arn.as_deref() == source_arn)
    }

    /// Whether a request for `other` asks for this grant again (KMS: the name and all other parameters).
    pub fn is_same_request(&self, other: &Self) -> bool {
        let parts = |it: &Self| {
            (
                it.name.clone(),
                it.grantee.clone(),
                it.retiring.clone(),
                it.operations,
                it.source_arn.clone(),
                it.issuer.clone(),
            )
        };
        parts(self) == parts(other)
    }
}

/// Who may retire a grant, as far as the grant says.
impl Grant {
    /// How a caller may retire it: the retiring principal, the grantee if it may, and whoever the issuing
    /// account lets do it.
    pub fn retired_by(&self, bearer: &Bearer<'_>) -> Option<GrantedTo> {
        let retiring = self.retiring.as_ref().and_then(|one| one.means(bearer));
        let grantee = self
            .covers(Operation::RetireGrant, None)
            .then(|| self.grantee.means(bearer))
            .flatten();
        let issuer = (self.issuer == *bearer.caller.account()).then_some(GrantedTo::ItsAccount);
        let all = [retiring, grantee, issuer];
        let itself = all.iter().flatten().find(|how| **how == GrantedTo::Itself);
        itself.or_else(|| all.iter().flatten().next()).copied()
    }
}

/// A caller, as a grant's principals are compared with it.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The immutable ID of the caller, or of its role, by each of what is known of it; the same one
    /// twice if nothing changed since it was authenticated.
    pub ids: [Option<&'a str>; 2],
}

/// How a grant lets a caller in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GrantedTo {
    /// By its own ARN, or its role's.
    Itself,
    /// By its account, whose own policies must allow the caller.
    ItsAccount,
}

/// The principal of a grant: a user, a role, a session, or an account by its root.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GrantPrincipal {
    /// Its ARN.
    pub arn: String,
    /// The immutable ID that it had when the grant was made, if it had one: who gets the ARN later has
    /// not got the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl GrantPrincipal {
    /// Whether, and how, it means a caller.
    pub fn means(&self, bearer: &Bearer<'_>) -> Option<GrantedTo> {
        let is_other = |id: &String| bearer.ids.iter().any(|one| *one != Some(id.as_str()));
        if bearer.caller.is_named_by(&self.arn) {
            // The root itself is let in by its account: that is who the account is.
            return match self.id.as_ref().is_some_and(is_other) {
                true => None,
                false if bearer.caller.is_root() => Some(GrantedTo::ItsAccount),
                false => Some(GrantedTo::Itself),
            };
        }
        let root = Caller::parse(&self.arn).ok().filter(Caller::is_root)?;
        (root.account() == bearer.caller.account()).then_some(GrantedTo::ItsAccount)
    }
}

/// The ID of a grant: 32 bytes, which KMS shows as 64 lowercase hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GrantId([u8; 32]);

impl GrantId {
    /// Of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for GrantId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        decode_hex(text)
            .filter(|_| lowercase)
            .and_then(|bytes| Some(Self(bytes.try_into().ok()?)))
            .ok_or_else(|| format!("{text:?} is no grant ID: it must be 64 lowercase hex digits"))
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for GrantId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GrantId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A set of the operations that a grant on an HMAC key can give.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GrantOperations(u8);

impl GrantOperations {
    /// All that there are, in the order in which KMS tells them.
    pub const ALL: [Operation; 5] = [
        Operation::CreateGrant,
        Operation::RetireGrant,
        Operation::DescribeKey,
        Operation::GenerateMac,
        Operation::VerifyMac,
    ];

    /// Those of these names; none if one of them is of no such operation.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        names.into_iter().try_fold(Self::default(), |set, name| {
            let at = Self::ALL.iter().position(|one| one.name() == name)?;
            Some(Self(set.0 | 1 << at))
        })
    }

    /// Whether an operation is one of them.
    pub fn contains(self, operation: Operation) -> bool {
        self.iter().any(|one| one == operation)
    }

    /// Whether all of them are among others.
    pub const fn is_subset_of(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of [`GrantOperations::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        let all = Self::ALL.into_iter().enumerate();
        all.filter_map(move |(at, one)| (self.0 >> at & 1 == 1).then_some(one))
    }
}

impl Serialize for GrantOperations {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Operation::name))
    }
}

impl<'de> Deserialize<'de> for GrantOperations {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        Self::named(names.iter().map(String::as_str))
            .filter(|set| !set.is_empty() && set.iter().count() == names.len())
            .ok_or_else(|| D::Error::custom(format!("{names:?} are no operations of a grant")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "arn:aws:iam::111122223333:user/billing";
    const ROOT: &str = "arn:aws:iam::111122223333:root";
    const ROLE: &str = "arn:aws:iam::111122223333:role/of/shop/pay";
    const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/pay/s1";
    const FOREIGN: &str = "arn:aws:iam::444455556666:user/billing";

    fn principal(arn: &str, id: Option<&str>) -> GrantPrincipal {
        GrantPrincipal {
            arn: arn.into(),
            id: id.map(str::to_owned),
        }
    }

    fn grant(grantee: &str, operations: &[&str]) -> Grant {
        Grant {
            name: None,
            grantee: principal(grantee, None),
            retiring: None,
            operations: GrantOperations::named(operations.iter().copied()).unwrap(),
            source_arn: None,
            issuer: "111122223333".parse().unwrap(),
            parent: None,
            created: Date::of_millis(1_690_000_000_000),
        }
    }

    fn how(grantee: &GrantPrincipal, caller: &str, ids: [Option<&str>; 2]) -> Option<GrantedTo> {
        let caller = Caller::parse(caller).unwrap();
        grantee.means(&Bearer {
            caller: &caller,
            ids,
        })
    }

    #[test]
    fn a_grant_s_principal_means_itself_its_sessions_or_its_account() {
        use GrantedTo::{ItsAccount, Itself};
        for (grantee, caller, wanted) in [
            (USER, USER, Some(Itself)),
            (USER, ROOT, None),
            (USER, FOREIGN, None),
            (ROLE, SESSION, Some(Itself)),
            (ROLE, ROLE, Some(Itself)),
            (SESSION, SESSION, Some(Itself)),
            (SESSION, ROLE, None),
            (ROOT, USER, Some(ItsAccount)),
            (ROOT, ROOT, Some(ItsAccount)),
            (ROOT, SESSION, Some(ItsAccount)),
            (ROOT, FOREIGN, None),
        ] {
            let found = how(&principal(grantee, None), caller, [None, None]);
            assert_eq!(found, wanted, "{grantee} {caller}");
        }
    }

    /// Security: nor does who had the ID before a reload, or has it only since.
    #[test]
    fn who_gets_the_arn_of_a_grant_s_principal_later_does_not_get_the_grant() {
        let grantee = principal(USER, Some("AIDAONE"));
        for (ids, good) in [
            ([Some("AIDAONE"), Some("AIDAONE")], true),
            ([Some("AIDAONE"), None], false),
            ([Some("AIDATWO"), Some("AIDAONE")], false),
            ([None, None], false),
        ] {
            assert_eq!(how(&grantee, USER, ids).is_some(), good, "{ids:?}");
        }
        let anybody = principal(USER, None);
        assert!(how(&anybody, USER, [Some("AIDAONE"), None]).is_some());
    }

    #[test]
    fn who_may_retire_a_grant() {
        use GrantedTo::{ItsAccount, Itself};
        let mut one = grant(SESSION, &["GenerateMac"]);
        one.issuer = "444455556666".parse().unwrap();
        let how = |grant: &Grant, caller: &str| {
            let caller = Caller::parse(caller).unwrap();
            grant.retired_by(&Bearer {
                caller: &caller,
                ids: [None, None],
            })
        };
        assert_eq!(how(&one, SESSION), None);
        assert_eq!(how(&one, FOREIGN), Some(ItsAccount));
        one.retiring = Some(principal(USER, None));
        assert_eq!(how(&one, USER), Some(Itself));
        one.operations = GrantOperations::named(["RetireGrant"]).unwrap();
        assert_eq!(how(&one, SESSION), Some(Itself));
        one.source_arn = Some("arn:aws:s3:::bucket-of-ours".into());
        assert_eq!(how(&one, SESSION), None);
        assert_eq!(how(&one, USER), Some(Itself));
    }

    #[test]
    fn a_constraint_that_no_request_meets_allows_nothing_and_a_child_is_no_wider() {
        let bucket = "arn:aws:s3:::bucket-of-ours";
        let mut one = grant(USER, &["GenerateMac", "CreateGrant"]);
        let few = GrantOperations::named(["GenerateMac"]).unwrap();
        let more = GrantOperations::named(["GenerateMac", "VerifyMac"]).unwrap();
        assert!(one.covers(Operation::GenerateMac, None));
        assert!(!one.covers(Operation::VerifyMac, None));
        assert!(one.is_wider_than(few, Some(bucket)) && !one.is_wider_than(more, None));
        one.source_arn = Some(bucket.into());
        assert!(!one.covers(Operation::GenerateMac, None));
        assert!(one.covers(Operation::GenerateMac, Some(bucket)));
        assert!(!one.is_wider_than(few, None) && one.is_wider_than(few, Some(bucket)));
    }

    #[test]
    fn a_grant_keeps_its_form_and_what_is_not_exactly_one_is_not_read() {
        let golden = format!(
            concat!(
                r#"{{"name":"for bills","grantee":{{"arn":"{}","id":"AIDAONE"}},"retiring":{{"arn":"{}"}},"#,
                r#""operations":["CreateGrant","GenerateMac"],"source_arn":"arn:aws:s3:::a-bucket","#,
                r#""issuer":"111122223333","parent":"{}","created":1690000000000}}"#
            ),
            USER,
            ROLE,
            "0f".repeat(32)
        );
        let read: Grant = serde_json::from_str(&golden).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), golden);
        let least = serde_json::to_string(&grant(USER, &["VerifyMac"])).unwrap();
        assert!(
            !least.contains("name") && !least.contains("null"),
            "{least}"
        );
        for (right, wrong) in [
            ("\"name\"", "\"more\""),
            ("\"CreateGrant\"", "\"Encrypt\""),
            ("\"CreateGrant\",", "\"GenerateMac\","),
            ("\"CreateGrant\",\"GenerateMac\"", ""),
            ("0f0f", "0F0f"),
            ("0f0f", "0f"),
            ("\"issuer\":\"111122223333\",", ""),
        ] {
            let text = golden.replacen(right, wrong, 1);
            assert_ne!(text, golden);
            assert!(serde_json::from_str::<Grant>(&text).is_err(), "{text}");
        }
    }
}
