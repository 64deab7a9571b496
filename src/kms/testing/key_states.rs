//! Random lives of keys, against a model that knows KMS's contract and nothing of the code.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::KeyState;

const MISSING: &str = "c234abcd-12ab-34cd-56ef-1234567890ab";
const KEYS: [&str; 4] = [ONE, TWO, FIRST, MISSING];
const ALIASES: [&str; 4] = ["alias/a", "alias/b", "alias/c/d", "alias/pay"];
const DECLARED_ALIAS: &str = "alias/pay";
const TAGS: [&str; 3] = ["team", "Team", "cost center"];

#[derive(Clone, Debug)]
enum Step {
    Enable(usize),
    Disable(usize),
    Schedule(usize, i64),
    Cancel(usize),
    Describe(usize, String),
    Tag(usize, Vec<(usize, String)>),
    Untag(usize, Vec<usize>),
    CreateAlias(usize, usize),
    UpdateAlias(usize, usize),
    DeleteAlias(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let alias = 0..ALIASES.len();
    let tag = 0..TAGS.len();
    prop_oneof![
        2 => key.clone().prop_map(Step::Enable),
        2 => key.clone().prop_map(Step::Disable),
        1 => (key.clone(), 6_i64..=31).prop_map(|(key, days)| Step::Schedule(key, days)),
        2 => key.clone().prop_map(Step::Cancel),
        1 => (key.clone(), "[a-zä]{0,5}").prop_map(|(key, text)| Step::Describe(key, text)),
        2 => (key.clone(), prop::collection::vec((tag.clone(), "[a-z]{0,3}"), 0..4))
            .prop_map(|(key, tags)| Step::Tag(key, tags)),
        1 => (key.clone(), prop::collection::vec(tag, 0..3)).prop_map(|(key, tags)| Step::Untag(key, tags)),
        3 => (alias.clone(), key.clone()).prop_map(|(alias, key)| Step::CreateAlias(alias, key)),
        2 => (alias.clone(), key).prop_map(|(alias, key)| Step::UpdateAlias(alias, key)),
        1 => alias.prop_map(Step::DeleteAlias),
        1 => Just(Step::Restart),
    ]
}

/// What a stored key is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct ModelKey {
    state: &'static str,
    description: String,
    tags: Vec<(String, String)>,
}

/// What the service is: the two stored keys and the aliases of the store.
#[derive(Clone, Debug, Default)]
struct Model {
    keys: BTreeMap<&'static str, ModelKey>,
    aliases: BTreeMap<&'static str, &'static str>,
}

/// The exception's kind and its text.
type Refused = (Kind, String);

impl Model {
    fn new() -> Self {
        let key = |state| ModelKey {
            state,
            ..ModelKey::default()
        };
        Self {
            keys: BTreeMap::from([(ONE, key("Enabled")), (TWO, key("Disabled"))]),
            aliases: BTreeMap::new(),
        }
    }

    /// A key that may be changed unless it is in one of these states.
    fn key(&mut self, number: usize, pending: bool) -> Result<&mut ModelKey, Refused> {
        let id = KEYS[number];
        if id == FIRST {
            return Err(declared(&arn(id)));
        }
        self.key_exists(number)?;
        let key = self.keys.get_mut(id).unwrap();
        match (key.state == "PendingDeletion", pending) {
            (true, false) => Err((
                Kind::InvalidState,
                format!("{} is pending deletion.", arn(id)),
            )),
            (false, true) => Err((
                Kind::InvalidState,
                format!("{} is not pending deletion.", arn(id)),
            )),
            _ => Ok(key),
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), Refused> {
        match step {
            Step::Enable(key) => self.key(*key, false)?.state = "Enabled",
            Step::Disable(key) => self.key(*key, false)?.state = "Disabled",
            Step::Schedule(key, days) => {
                if !(7..=30).contains(days) {
                    let say = "PendingWindowInDays must be between 7 and 30 (inclusive).";
                    return Err((Kind::Validation, say.into()));
                }
                self.key(*key, false)?.state = "PendingDeletion";
            }
            Step::Cancel(key) => self.key(*key, true)?.state = "Disabled",
            Step::Describe(key, text) => self.key(*key, false)?.description.clone_from(text),
            Step::Tag(key, tags) => {
                let mut numbers: Vec<_> = tags.iter().map(|(tag, _)| tag).collect();
                numbers.sort();
                numbers.dedup();
                if numbers.len() < tags.len() {
                    return Err((Kind::Tag, "Duplicate tag keys".into()));
                }
                let key = self.key(*key, false)?;
                for (tag, value) in tags {
                    match key.tags.iter_mut().find(|(name, _)| name == TAGS[*tag]) {
                        Some(old) => old.1.clone_from(value),
                        None => key.tags.push((TAGS[*tag].into(), value.clone())),
                    }
                }
            }
            Step::Untag(key, tags) => {
                let key = self.key(*key, false)?;
                key.tags
                    .retain(|(name, _)| tags.iter().all(|tag| TAGS[*tag] != name));
            }
            Step::CreateAlias(alias, key) => {
                self.key(*key, false)?;
                let name = ALIASES[*alias];
                if name == "alias/pay" || self.aliases.contains_key(name) {
                    let say = format!("An alias with the name {} already exists", alias_arn(name));
                    return Err((Kind::AlreadyExists, say));
                }
                self.aliases.insert(name, KEYS[*key]);
            }
            Step::UpdateAlias(alias, key) => {
                self.alias_exists(*alias)?;
                self.key_exists(*key)?;
                self.alias(*alias)?;
                self.key(*key, false)?;
                self.aliases.insert(ALIASES[*alias], KEYS[*key]);
            }
            Step::DeleteAlias(alias) => {
                self.alias(*alias)?;
                self.aliases.remove(ALIASES[*alias]);
            }
            Step::Restart => {}
        }
        Ok(())
    }

    fn alias(&self, number: usize) -> Result<(), Refused> {
        let name = ALIASES[number];
        if name == DECLARED_ALIAS {
            return Err(declared(&alias_arn(name)));
        }
        self.alias_exists(number)
    }

    fn alias_exists(&self, number: usize) -> Result<(), Refused> {
        let name = ALIASES[number];
        if name == DECLARED_ALIAS || self.aliases.contains_key(name) {
            return Ok(());
        }
        let say = format!("Alias {} is not found.", alias_arn(name));
        Err((Kind::NotFound, say))
    }

    fn key_exists(&self, number: usize) -> Result<(), Refused> {
        let id = KEYS[number];
        if id == FIRST || self.keys.contains_key(id) {
            return Ok(());
        }
        Err((Kind::NotFound, format!("Key '{}' does not exist", arn(id))))
    }
}

fn declared(arn: &str) -> Refused {
    (
        Kind::UnsupportedOperation,
        format!("{arn} is declared in the configuration, which alone can change it."),
    )
}

fn alias_arn(name: &str) -> String {
    format!("arn:aws:kms:us-west-2:{ACCOUNT}:{name}")
}

/// Takes the step over the operations.
async fn take(kms: &Kms, step: &Step) -> Result<(), Error> {
    let caller = &caller(ACCOUNT);
    let key = |number: &usize| Some(KEYS[*number].to_owned());
    let alias = |number: &usize| Some(ALIASES[*number].to_owned());
    match step {
        Step::Enable(number) => {
            let request = EnableKey {
                key_id: key(number),
            };
            kms.enable_key(caller, &request, soon()).await
        }
        Step::Disable(number) => {
            let request = DisableKey {
                key_id: key(number),
            };
            kms.disable_key(caller, &request, soon()).await
        }
        Step::Schedule(number, days) => {
            let request = ScheduleKeyDeletion {
                key_id: key(number),
                pending_window_in_days: Some(*days),
            };
            let scheduled = kms.schedule_key_deletion(caller, &request, soon()).await;
            scheduled.map(drop)
        }
        Step::Cancel(number) => {
            let request = CancelKeyDeletion {
                key_id: key(number),
            };
            let cancelled = kms.cancel_key_deletion(caller, &request, soon()).await;
            cancelled.map(drop)
        }
        Step::Describe(number, text) => {
            let request = UpdateKeyDescription {
                key_id: key(number),
                description: Some(text.clone()),
            };
            kms.update_key_description(caller, request, soon()).await
        }
        Step::Tag(number, tags) => {
            let request = TagResource {
                key_id: key(number),
                tags: Some(
                    tags.iter()
                        .map(|(tag, value)| (Some(TAGS[*tag].to_owned()), Some(value.clone())))
                        .collect(),
                ),
            };
            kms.tag_resource(caller, request, soon()).await
        }
        Step::Untag(number, tags) => {
            let request = UntagResource {
                key_id: key(number),
                tag_keys: Some(tags.iter().map(|tag| TAGS[*tag].to_owned()).collect()),
            };
            kms.untag_resource(caller, &request, soon()).await
        }
        Step::CreateAlias(name, number) => {
            let request = CreateAlias {
                alias_name: alias(name),
                target_key_id: key(number),
            };
            kms.create_alias(caller, &request, soon()).await
        }
        Step::UpdateAlias(name, number) => {
            let request = UpdateAlias {
                alias_name: alias(name),
                target_key_id: key(number),
            };
            kms.update_alias(caller, &request, soon()).await
        }
        Step::DeleteAlias(name) => {
            let request = DeleteAlias {
                alias_name: alias(name),
            };
            kms.delete_alias(caller, &request, soon()).await
        }
        Step::Restart => Ok(()),
    }
}

/// Everything that the operations tell is what the model says.
async fn compare(kms: &Kms, model: &Model) {
    let caller = &caller(ACCOUNT);
    let listed = kms
        .list_keys(
            caller,
            ListKeys {
                limit: None,
                marker: None,
                ..ListKeys::default()
            },
        )
        .unwrap();
    let ids: Vec<_> = listed.keys.iter().map(|key| key.key_id.as_str()).collect();
    assert_eq!(ids, [FIRST, DISABLED, ONE, TWO]);

    for (id, wanted) in &model.keys {
        let asked = DescribeKey {
            key_id: Some(arn(id)),
            grant_tokens: Vec::new(),
        };
        let told = kms.describe_key(caller, asked, soon()).await.unwrap();
        assert_eq!(format!("{:?}", told.state), wanted.state);
        assert_eq!(told.description.as_str(), wanted.description);
        assert_eq!(
            told.deletion_date.is_some(),
            told.state == KeyState::PendingDeletion
        );
        let asked = ListResourceTags {
            key_id: Some((*id).into()),
            limit: None,
            marker: None,
        };
        let tags: Vec<_> = kms
            .list_resource_tags(caller, &asked)
            .unwrap()
            .tags
            .iter()
            .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
            .collect();
        assert_eq!(tags, wanted.tags);
    }

    let aliases = |key_id: Option<&str>| -> Vec<(String, String)> {
        let asked = ListAliases {
            key_id: key_id.map(str::to_owned),
            limit: None,
            marker: None,
        };
        let page = kms.list_aliases(caller, &asked).unwrap();
        page.aliases
            .into_iter()
            .map(|alias| {
                assert_eq!(alias.arn, alias_arn(alias.name.as_str()));
                (
                    alias.name.to_string(),
                    alias.target_key_id.unwrap().to_string(),
                )
            })
            .collect()
    };
    let mut wanted = model.aliases.clone();
    wanted.extend([("alias/pay", FIRST), ("alias/x/y", FIRST)]);
    let pairs = |of: Option<&str>| -> Vec<(String, String)> {
        wanted
            .iter()
            .filter(|(_, target)| of.is_none_or(|of| of == **target))
            .map(|(name, target)| ((*name).to_owned(), (*target).to_owned()))
            .collect()
    };
    assert_eq!(aliases(None), pairs(None));
    for id in [ONE, TWO, FIRST] {
        assert_eq!(aliases(Some(id)), pairs(Some(id)));
    }
    for (name, target) in wanted {
        let found = kms
            .catalogue
            .resolve(caller, Operation::GenerateMac, name)
            .unwrap();
        assert_eq!(found.body.key_id.as_str(), target);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_life_is_as_kms_s(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = Store::memory();
            seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
            seed(&store, &stored_key(TWO, StoredState::Disabled)).await;
            let mut kms = over(&store).await;
            let mut model = Model::new();
            for step in &steps {
                let wanted = model.take(step);
                if matches!(step, Step::Restart) {
                    kms = over(&store).await;
                }
                let said = take(&kms, step)
                    .await
                    .map_err(|error| (error.kind(), error.say().to_owned()));
                assert_eq!(said, wanted, "{step:?}");
                compare(&kms, &model).await;
            }
        });
    }
}
