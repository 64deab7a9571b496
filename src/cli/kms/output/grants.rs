//! Answers about grants.

use serde::Serialize;

use super::{CommandOutput, PageMembers};
use crate::{
    cli::kms::{pages::Listed, seconds},
    proto::v1::{CreateGrantResponse, GrantListEntry},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    grant_token: String,
    grant_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GrantList {
    grants: Vec<GrantEntry>,
    #[serde(flatten)]
    page: PageMembers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GrantEntry {
    key_id: String,
    grant_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_date: Option<f64>,
    grantee_principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retiring_principal: Option<String>,
    issuing_account: String,
    operations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<Constraints>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Constraints {
    source_arn: String,
}

pub(in crate::cli::kms) fn create_grant(reply: CreateGrantResponse) -> CommandOutput {
    CommandOutput::of(&Created {
        grant_token: reply.grant_token,
        grant_id: reply.grant_id,
    })
}

pub(in crate::cli::kms) fn list_grants(listed: Listed<GrantListEntry>) -> CommandOutput {
    let page = PageMembers::of(&listed);
    let grants = listed.entries.into_iter().map(|grant| GrantEntry {
        key_id: grant.key_id,
        grant_id: grant.grant_id,
        name: grant.name,
        creation_date: grant.creation_date.map(seconds),
        grantee_principal: grant.grantee_principal,
        retiring_principal: grant.retiring_principal,
        issuing_account: grant.issuing_account,
        operations: grant.operations,
        constraints: grant
            .constraints
            .and_then(|it| it.source_arn)
            .map(|source_arn| Constraints { source_arn }),
    });
    CommandOutput::of(&GrantList {
        grants: grants.collect(),
        page,
    })
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::{super::OutputFormat, *};

    #[test]
    fn grants_as_aws_prints_them() {
        let listed = list_grants(Listed {
            entries: vec![GrantListEntry {
                key_id: "arn:k".into(),
                grant_id: "0f".into(),
                creation_date: Some(Timestamp {
                    seconds: 1_669_973_196,
                    nanos: 0,
                }),
                grantee_principal: "arn:u".into(),
                issuing_account: "arn:root".into(),
                operations: vec!["GenerateMac".into()],
                ..GrantListEntry::default()
            }],
            ..Listed::default()
        });
        assert!(!listed.json.contains("Name") && !listed.json.contains("Constraints"));
        assert_eq!(
            listed.printed(OutputFormat::Text),
            "GRANTS\t1669973196.0\t0f\tarn:u\tarn:root\tarn:k\nOPERATIONS\tGenerateMac\n"
        );
        let made = create_grant(CreateGrantResponse {
            grant_token: "t".into(),
            grant_id: "0f".into(),
        });
        assert_eq!(made.printed(OutputFormat::Text), "0f\tt\n");
    }
}
