//! Members of requests that are only checked, by types as KMS's model has them: those of operations that
//! end in a refusal whatever they say.

use bytes::Bytes;

use super::{enum_violation, outside, text::TextType};
use crate::error::Violation;

/// A member of a request or of a structure in it.
#[derive(Debug)]
pub struct Member {
    /// KMS's name in camelCase.
    pub name: &'static str,
    /// Its type.
    pub of: MemberType,
    /// Whether it must be there.
    required: bool,
}

/// The type of a member.
#[derive(Debug)]
pub enum MemberType {
    /// Of 1 byte to so many; errors never tell it.
    Blob(usize),
    /// A point in time.
    Date,
    /// One of these texts.
    Enum(&'static [&'static str]),
    /// Whether or not.
    Flag,
    /// At least as many as the first, at most as many as the second says.
    List(&'static Self, usize, usize),
    /// Texts by names, neither of which has a constraint.
    Map,
    /// In a range, ends included.
    Number(i64, i64),
    /// Members of its own.
    Structure(&'static [Member]),
    /// A text.
    Text(&'static TextType),
}

/// The value of a member, of the kind that its type says.
#[derive(Clone, Debug)]
pub enum MemberValue {
    /// Of a blob.
    Blob(Bytes),
    /// Of a list.
    List(Vec<Self>),
    /// Of a number.
    Number(i64),
    /// Of a structure: a value, or none, for each member.
    Structure(Vec<Option<Self>>),
    /// Of a text or an enum.
    Text(String),
    /// Of what has no constraint.
    Unconstrained,
}

impl Member {
    pub(in crate::kms) const fn required(name: &'static str, of: MemberType) -> Self {
        Self {
            name,
            of,
            required: true,
        }
    }

    pub(in crate::kms) const fn optional(name: &'static str, of: MemberType) -> Self {
        Self {
            name,
            of,
            required: false,
        }
    }
}

/// Pushes every constraint that a request's values break.
pub(in crate::kms) fn check_members(
    members: &'static [Member],
    values: &[Option<MemberValue>],
    broken: &mut Vec<Violation>,
) {
    for (member, value) in members.iter().zip(values) {
        let at = Place {
            member: member.name,
            path: member.name.to_owned(),
        };
        at.check_member(member, value.as_ref(), broken);
    }
}

/// Where a value stands: in a member of the request, at a path.
struct Place {
    member: &'static str,
    path: String,
}

impl Place {
    fn within(&self, part: &str) -> Self {
        Self {
            member: self.member,
            path: format!("{}.{part}", self.path),
        }
    }

    fn check_member(
        &self,
        member: &Member,
        value: Option<&MemberValue>,
        broken: &mut Vec<Violation>,
    ) {
        match value {
            Some(value) => self.check(&member.of, value, broken),
            None if member.required => {
                broken.push(Violation::null(self.member).at(self.path.clone()));
            }
            None => {}
        }
    }

    fn check(&self, of: &MemberType, value: &MemberValue, broken: &mut Vec<Violation>) {
        let mut push = |violation: Violation| broken.push(violation.at(self.path.clone()));
        match (of, value) {
            (MemberType::Blob(longest), MemberValue::Blob(blob)) => {
                if let Some(bound) = outside(blob.len(), &(1..=*longest)) {
                    let must = format!("Member must have length {bound}");
                    push(Violation::new(self.member, must));
                }
            }
            (MemberType::Enum(names), MemberValue::Text(name)) => {
                if !names.contains(&name.as_str()) {
                    push(enum_violation(self.member, name, names));
                }
            }
            (MemberType::Number(least, most), MemberValue::Number(number)) => {
                if let Some(bound) = outside(*number, &(*least..=*most)) {
                    let must = format!("Member must have value {bound}");
                    push(Violation::new(self.member, must).of(number.to_string()));
                }
            }
            (MemberType::Text(of), MemberValue::Text(text)) => {
                of.check(self.member, &self.path, text, broken);
            }
            (MemberType::List(of, least, most), MemberValue::List(values)) => {
                if let Some(bound) = outside(values.len(), &(*least..=*most)) {
                    let must = format!("Member must have length {bound}");
                    push(Violation::new(self.member, must));
                    return;
                }
                for (index, value) in values.iter().enumerate() {
                    let at = self.within(&format!("{}.member", index + 1));
                    at.check(of, value, broken);
                }
            }
            (MemberType::Structure(members), MemberValue::Structure(values)) => {
                for (member, value) in members.iter().zip(values) {
                    let at = self.within(member.name);
                    at.check_member(member, value.as_ref(), broken);
                }
            }
            // Without constraints, or of another kind than the type: a front makes none of those.
            (
                MemberType::Blob(_)
                | MemberType::Date
                | MemberType::Enum(_)
                | MemberType::Flag
                | MemberType::List(..)
                | MemberType::Map
                | MemberType::Number(..)
                | MemberType::Structure(_)
                | MemberType::Text(_),
                _,
            ) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::text::{GRANT_TOKEN, TAG_KEY},
        *,
    };

    const TAG: &[Member] = &[
        Member::required("tagKey", MemberType::Text(&TAG_KEY)),
        Member::optional("of", MemberType::Enum(&["A", "B"])),
    ];
    const TOKEN: &MemberType = &MemberType::Text(&GRANT_TOKEN);
    const MEMBERS: &[Member] = &[
        Member::required("keyId", MemberType::Flag),
        Member::optional("tags", MemberType::List(&MemberType::Structure(TAG), 0, 2)),
        Member::optional("grantTokens", MemberType::List(TOKEN, 0, 10)),
        Member::optional("days", MemberType::Number(90, 2560)),
        Member::optional("blob", MemberType::Blob(2)),
    ];

    fn text(text: &str) -> Option<MemberValue> {
        Some(MemberValue::Text(text.into()))
    }

    fn said(values: &[Option<MemberValue>]) -> Vec<String> {
        let mut broken = Vec::new();
        check_members(MEMBERS, values, &mut broken);
        broken.iter().map(|v| v.text(str::to_owned)).collect()
    }

    #[test]
    fn each_broken_constraint_is_told_where_it_is() {
        let tags = vec![
            MemberValue::Structure(vec![text("a"), text("A")]),
            MemberValue::Structure(vec![None, text("C")]),
        ];
        let tokens = vec![MemberValue::Text(String::new())];
        assert_eq!(
            said(&[
                None,
                Some(MemberValue::List(tags)),
                Some(MemberValue::List(tokens)),
                Some(MemberValue::Number(2561)),
                Some(MemberValue::Blob(Bytes::from_static(b"abc"))),
            ]),
            [
                "Value null at 'keyId' failed to satisfy constraint: Member must not be null",
                "Value null at 'tags.2.member.tagKey' failed to satisfy constraint: Member must not be null",
                "Value 'C' at 'tags.2.member.of' failed to satisfy constraint: Member must satisfy enum value set: [A, B]",
                "Value at 'grantTokens.1.member' failed to satisfy constraint: Member must have length greater than or equal to 1",
                "Value '2561' at 'days' failed to satisfy constraint: Member must have value less than or equal to 2560",
                "Value at 'blob' failed to satisfy constraint: Member must have length less than or equal to 2",
            ]
        );
        let many = vec![MemberValue::Structure(vec![text(""), None]); 3];
        assert_eq!(
            said(&[
                Some(MemberValue::Unconstrained),
                Some(MemberValue::List(many)),
                None,
                None,
                None
            ]),
            [
                "Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 2"
            ]
        );
    }
}
