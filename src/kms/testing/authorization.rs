//! Rights: what the policies of a key and of its callers let the operations do.

use super::*;

const STRANGER: &str = "444455556666";

/// The operations over a store with one key, ONE, which has this policy; each principal by its
/// account's number, with its identity policy.
pub(crate) async fn judged(key_policy: &str, principals: &[(&str, &str)]) -> Arc<Kms> {
    let store = Store::memory();
    let mut key = stored_key(ONE, StoredState::Enabled);
    key_policy.clone_into(&mut key.policy);
    seed(&store, &key).await;
    // For what asks for a grant; it lets in nobody who asks here.
    let somebody = "arn:aws:iam::111122223333:user/somebody";
    seed_grant(&store, 7, somebody, &["GenerateMac"]).await;
    let principal = |(account, statement): &(&str, &str)| PrincipalPolicies {
        attributes: Default::default(),
        caller: caller(account),
        policies: vec![policy(statement)],
    };
    let settings = settings_with(principals.iter().map(principal).collect());
    let kms = Kms::with_groups(settings, &["a".into(), "b".into()], Vec::new()).unwrap();
    kms.over_store(store).await.unwrap()
}

fn key_policy(statements: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#)
}

const TO_USER: &str = r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/billing"},"Action":"kms:*","Resource":"*"}"#;

async fn describe(kms: &Kms, account: &str, key_id: &str) -> Result<KeyMetadata, Error> {
    let request = DescribeKey {
        key_id: Some(key_id.into()),
        grant_tokens: Vec::new(),
    };
    kms.describe_key(&caller(account), request, soon()).await
}

async fn put(kms: &Kms, text: &str, bypass: bool) -> Result<(), Error> {
    let request = PutKeyPolicy {
        key_id: Some(ONE.into()),
        policy_name: None,
        policy: Some(text.into()),
        bypass_policy_lockout_safety_check: bypass,
    };
    kms.put_key_policy(&caller(ACCOUNT), request, soon()).await
}

fn get(kms: &Kms) -> KeyPolicy {
    let request = GetKeyPolicy {
        key_id: Some(ONE.into()),
        policy_name: None,
    };
    kms.get_key_policy(&caller(ACCOUNT), &request).unwrap()
}

#[tokio::test]
async fn a_denial_is_told_in_kms_s_words() {
    let user = "User: arn:aws:iam::111122223333:user/billing is not authorized to perform: kms:DescribeKey";
    let on_key = format!("{user} on resource: {}", arn(ONE));
    let allow = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
    let deny = r#"{"Effect":"Deny","Action":"kms:*","Resource":"*"}"#;
    let to_stranger = TO_USER.replace(ACCOUNT, STRANGER);
    let denied = TO_USER.replace("Allow", "Deny");
    for (key, own, said) in [
        (
            "",
            None,
            format!("{on_key} because no identity-based policy allows the kms:DescribeKey action"),
        ),
        (
            "",
            Some(deny),
            format!("{on_key} with an explicit deny in an identity-based policy"),
        ),
        (
            &*to_stranger,
            Some(allow),
            format!("{on_key} because no resource-based policy allows the kms:DescribeKey action"),
        ),
        (
            &*denied,
            Some(allow),
            format!("{on_key} with an explicit deny in a resource-based policy"),
        ),
    ] {
        let key = if key.is_empty() {
            String::new()
        } else {
            key_policy(key)
        };
        let principals: Vec<_> = own.map(|own| (ACCOUNT, own)).into_iter().collect();
        let kms = judged(&key, &principals).await;
        let error = describe(&kms, ACCOUNT, ONE).await.unwrap_err();
        assert_eq!((error.kind(), error.say()), (Kind::AccessDenied, &*said));
    }

    // To somebody of another account a key that does not let it in is as one that is not there.
    let kms = judged("", &[(STRANGER, allow)]).await;
    let there = describe(&kms, STRANGER, &arn(ONE)).await.unwrap_err();
    let not_there = describe(&kms, STRANGER, &arn(TWO)).await.unwrap_err();
    assert_eq!(there.say(), not_there.say());
    assert!(
        there
            .say()
            .contains("the resource does not exist in this Region")
    );
    // Not even by what the stranger's own policy says, or by a grant token.
    let deny = r#"{"Effect":"Deny","Action":"kms:*","Resource":"*"}"#;
    let kms = judged("", &[(STRANGER, deny)]).await;
    let there = describe(&kms, STRANGER, &arn(ONE)).await.unwrap_err();
    assert_eq!(there.say(), not_there.say());
    let with_token = DescribeKey {
        key_id: Some(arn(ONE)),
        grant_tokens: vec!["token".into()],
    };
    let error = kms
        .describe_key(&caller(STRANGER), with_token, soon())
        .await;
    assert_eq!(error.unwrap_err().say(), not_there.say());
    // One that does let it in, and it is its own account that does not.
    let kms = judged(&key_policy(&to_stranger), &[]).await;
    let error = describe(&kms, STRANGER, &arn(ONE)).await.unwrap_err();
    assert!(
        error.say().ends_with(
            "on this resource because no identity-based policy allows the kms:DescribeKey action"
        ),
        "{error}"
    );
    let kms = judged(&key_policy(&to_stranger), &[(STRANGER, allow)]).await;
    assert_eq!(
        describe(&kms, STRANGER, &arn(ONE))
            .await
            .unwrap()
            .key_id
            .as_str(),
        ONE
    );
}

#[tokio::test]
async fn conditions_see_the_request_the_key_and_its_names() {
    let allow_if = |condition: &str| {
        format!(r#"{{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{condition}}}"#)
    };
    for (condition, allowed) in [
        (r#"{"StringEquals":{"kms:KeySpec":"HMAC_256"}}"#, true),
        (r#"{"StringEquals":{"kms:KeySpec":"HMAC_512"}}"#, false),
        (
            r#"{"StringEquals":{"kms:KeyUsage":"GENERATE_VERIFY_MAC","kms:KeyOrigin":"AWS_KMS"}}"#,
            true,
        ),
        (r#"{"StringEquals":{"kms:RequestAlias":"alias/one"}}"#, true),
        (r#"{"Null":{"kms:RequestAlias":"true"}}"#, false),
        (
            r#"{"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/one"}}"#,
            true,
        ),
        (
            r#"{"ForAllValues:StringLike":{"kms:ResourceAliases":"alias/two*"}}"#,
            false,
        ),
        (r#"{"StringEquals":{"aws:ResourceTag/TEAM":"pay"}}"#, true),
        (
            r#"{"StringEquals":{"kms:CallerAccount":"111122223333"}}"#,
            true,
        ),
        (
            r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/bill*"}}"#,
            true,
        ),
        (
            r#"{"DateGreaterThan":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}"#,
            true,
        ),
        (r#"{"DateLessThan":{"aws:EpochTime":"1577836800"}}"#, false),
        (r#"{"Bool":{"aws:SecureTransport":"true"}}"#, false),
        (r#"{"Bool":{"kms:MultiRegion":"false"}}"#, true),
        (
            r#"{"StringEquals":{"kms:ViaService":"s3.us-west-2.amazonaws.com"}}"#,
            false,
        ),
    ] {
        let store = Store::memory();
        let mut key = stored_key(ONE, StoredState::Enabled);
        let tag = crate::model::Tag::new("team".into(), "pay".into()).unwrap();
        key.tags = crate::model::Tags::new(vec![tag]).unwrap();
        seed(&store, &key).await;
        let name = stored::alias_name(&key.account, &"alias/one".parse().unwrap());
        let alias = StoredAlias {
            target: ONE.parse().unwrap(),
            created: Date::now(),
            updated: Date::now(),
        };
        write(&store, name, stored::write(&alias)).await;
        let settings = settings_with(vec![PrincipalPolicies {
            attributes: Default::default(),
            caller: caller(ACCOUNT),
            policies: vec![policy(&allow_if(condition))],
        }]);
        let kms = Kms::with_groups(settings, &["a".into(), "b".into()], Vec::new()).unwrap();
        let kms = kms.over_store(store).await.unwrap();
        let described = describe(&kms, ACCOUNT, "alias/one").await;
        assert_eq!(described.is_ok(), allowed, "{condition}: {described:?}");
    }
}

#[tokio::test]
async fn a_policy_is_written_as_kms_writes_it() {
    let allow = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
    let kms = judged("", &[(ACCOUNT, allow)]).await;
    let default = get(&kms);
    assert_eq!(default.policy_name, "default");
    let parsed: serde_json::Value = serde_json::from_str(&default.policy).unwrap();
    assert_eq!(
        parsed["Statement"][0]["Principal"]["AWS"],
        "arn:aws:iam::111122223333:root"
    );
    assert_eq!(parsed["Statement"][0]["Sid"], "Enable IAM User Permissions");

    let own = key_policy(TO_USER);
    put(&kms, &own, false).await.unwrap();
    assert_eq!(get(&kms).policy, own);
    // The one that it takes the right from is in the way of it, unless the request bypasses the check.
    let others = key_policy(&TO_USER.replace("user/billing", "user/other"));
    let error = put(&kms, &others, false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::MalformedPolicyDocument);
    assert_eq!(
        error.say(),
        "The new key policy will not allow you to update the key policy in the future."
    );
    assert_eq!(get(&kms).policy, own);
    put(&kms, &others, true).await.unwrap();
    let error = put(&kms, &own, true).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AccessDenied);

    let request = |name: &str| GetKeyPolicy {
        key_id: Some(ONE.into()),
        policy_name: Some(name.into()),
    };
    let kms = judged("", &[(ACCOUNT, allow)]).await;
    let error = kms
        .get_key_policy(&caller(ACCOUNT), &request("other"))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.say()),
        (Kind::NotFound, "No such policy exists")
    );
    let error = kms
        .get_key_policy(&caller(ACCOUNT), &request("a b"))
        .unwrap_err();
    assert!(error.say().contains("at 'policyName' failed to satisfy constraint: Member must satisfy regular expression pattern"), "{error}");
    let list = |marker: Option<&str>| {
        let request = ListKeyPolicies {
            key_id: Some(ONE.into()),
            limit: None,
            marker: marker.map(str::to_owned),
        };
        kms.list_key_policies(&caller(ACCOUNT), &request)
    };
    assert_eq!(list(None).unwrap(), ["default"]);
    assert_eq!(list(Some("m")).unwrap_err().kind(), Kind::InvalidMarker);

    let put = |policy_name: Option<&str>, policy: Option<&str>| {
        let request = PutKeyPolicy {
            key_id: Some(ONE.into()),
            policy_name: policy_name.map(str::to_owned),
            policy: policy.map(str::to_owned),
            bypass_policy_lockout_safety_check: false,
        };
        let kms = kms.clone();
        async move {
            kms.put_key_policy(&caller(ACCOUNT), request, soon())
                .await
                .unwrap_err()
        }
    };
    let long = " ".repeat((32 << 10) + 1);
    let group = key_policy(&TO_USER.replace("user/billing", "group/billing"));
    for (name, text, kind) in [
        (None, None, Kind::Validation),
        (None, Some(""), Kind::Validation),
        (Some("other"), Some(&*own), Kind::UnsupportedOperation),
        (None, Some("{}"), Kind::MalformedPolicyDocument),
        (None, Some(&*long), Kind::LimitExceeded),
        (None, Some(&*group), Kind::InvalidArn),
    ] {
        let error = put(name, text).await;
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// The token::TokenKey that a caller was let in with is closed before PutKeyPolicy returns; its object is
/// the next one's too.
#[tokio::test]
async fn put_key_policy_fences() {
    let allow = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
    let kms = judged("", &[(ACCOUNT, allow)]).await;
    let resolve = || {
        kms.catalogue
            .resolve(&caller(ACCOUNT), Operation::GenerateMac, ONE)
            .ok()
            .unwrap()
    };
    let before = resolve();
    put(&kms, &key_policy(TO_USER), false).await.unwrap();
    let after = resolve();
    assert!(!Arc::ptr_eq(&before.key, &after.key));
    assert!(before.body.epoch < after.body.epoch);
    assert!(after.key.is_same_object(&before.key));
}

#[tokio::test]
async fn a_stored_policy_that_cannot_be_read_lets_nobody_in() {
    let allow = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
    let kms = judged(r#"{"Statement":[],"Surprise":1}"#, &[(ACCOUNT, allow)]).await;
    let error = describe(&kms, ACCOUNT, ONE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidState);
    assert!(error.say().ends_with("is unavailable."), "{error}");
}

/// Aliases have no policy of their own: the caller's speaks of them, and for each key besides.
#[tokio::test]
async fn an_alias_needs_rights_on_itself_and_on_its_keys() {
    let on = |resource: &str| {
        format!(r#"{{"Effect":"Allow","Action":"kms:*","Resource":"{resource}"}}"#)
    };
    let alias = "arn:aws:kms:us-west-2:111122223333:alias/one";
    let both = format!("[{},{}]", on(alias), on(&arn(ONE)));
    for (rights, may) in [(on(alias), false), (on(&arn(ONE)), false), (both, true)] {
        let kms = judged("", &[(ACCOUNT, &rights)]).await;
        let create = CreateAlias {
            alias_name: Some("alias/one".into()),
            target_key_id: Some(ONE.into()),
        };
        let update = UpdateAlias {
            alias_name: create.alias_name.clone(),
            target_key_id: create.target_key_id.clone(),
        };
        let delete = DeleteAlias {
            alias_name: create.alias_name.clone(),
        };
        let caller = caller(ACCOUNT);
        let created = kms.create_alias(&caller, &create, soon()).await;
        assert_eq!(created.is_ok(), may, "{rights}: {created:?}");
        let updated = kms.update_alias(&caller, &update, soon()).await;
        assert_eq!(updated.is_ok(), may, "{rights}: {updated:?}");
        let deleted = kms.delete_alias(&caller, &delete, soon()).await;
        assert_eq!(deleted.is_ok(), may, "{rights}: {deleted:?}");
        if let Err(error) = created {
            assert_eq!(error.kind(), Kind::AccessDenied);
        }
    }
}

/// Security: a call is judged by what its principal had when it was authenticated and by what it has
/// when it asks. So nobody has rights of before and of after a reload together.
#[tokio::test]
async fn a_caller_of_before_a_reload_has_no_right_that_comes_or_goes_with_it() {
    let all = r#"{"Effect":"Allow","Action":"kms:*","Resource":"*"}"#;
    let lists = r#"{"Effect":"Allow","Action":"kms:ListKeys","Resource":"*"}"#;
    let rights = |statement: &str| {
        let principal = PrincipalPolicies {
            attributes: Default::default(),
            caller: caller(ACCOUNT),
            policies: vec![policy(statement)],
        };
        DeclaredRights::new(vec![principal], None, Vec::new())
    };
    let kms = judged("", &[(ACCOUNT, all)]).await;
    for (then, now, good) in [(all, all, true), (all, lists, false), (lists, all, false)] {
        let request = || DescribeKey {
            key_id: Some(ONE.into()),
            grant_tokens: Vec::new(),
        };
        let before = rights(then).authenticate(&caller(ACCOUNT));
        let rights = rights(now);
        let after = rights.authenticate(&caller(ACCOUNT));
        assert_eq!(kms.declare(&[], rights, None).await, [""; 0]);
        let asked = kms.describe_key(&before, request(), soon()).await;
        assert_eq!(asked.is_ok(), good, "{then} {now}");
        let asked = kms.describe_key(&after, request(), soon()).await;
        assert_eq!(asked.is_ok(), now == all, "{now}");
    }
}
