//! `hsmac policy …`: evaluates policies without asking the server.

mod json;
mod text;
mod wording;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use chrono::DateTime;
use clap::ValueEnum;
use tokio::runtime::Builder;

use super::{CliError, Configuration, kms::tags, print};
use crate::{
    app,
    config::nearest,
    kms::{self, SimulatedGrant, SimulatedRequest, SimulationError},
    model::{
        AliasName, Caller, KeySpec, MacAlgorithm, NamesKey, Operation, RequestOrigin, Tag, Tags,
        policy::{Policy, PolicyKind},
    },
};

pub(super) const EXAMPLES: &str = "\
Examples:
  hsmac policy simulate --principal arn:aws:iam::111122223333:user/billing \\
      --operation GenerateMac --key-id alias/payments
  hsmac policy simulate --principal arn:aws:iam::111122223333:role/deploy \\
      --operation create-key --tags TagKey=team,TagValue=shop \\
      --policy-file new-policy.json
  hsmac policy simulate --principal arn:aws:iam::111122223333:user/billing \\
      --operation VerifyMac --key-id alias/payments --output json |
      jq .rights[0].because

Exit codes: 0 allowed; 1 denied; 64 usage, or no such key; 69 store away; 78 configuration.";

#[derive(clap::Args, Debug)]
pub(super) struct SimulateArguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Who asks. It need not be in the configuration.
    #[arg(long, value_name = "ARN", value_parser = Caller::parse)]
    principal: Caller,
    /// What for: GenerateMac, kms:GenerateMac or generate-mac.
    #[arg(long, value_parser = operation)]
    operation: Operation,
    /// Key ID, key ARN, alias name or alias ARN; of create-alias and update-alias the new target.
    #[arg(long)]
    key_id: Option<String>,
    /// Try this identity policy in place of those that the principal has.
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Try this key policy in place of the one that the key has.
    #[arg(long, value_name = "FILE", requires = "key_id")]
    key_policy_file: Option<PathBuf>,
    /// How the answer looks.
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    request: RequestArguments,
    #[command(flatten)]
    origin: OriginArguments,
}

/// Members of the request that conditions can test. Those that the operation lacks are refused.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "What else the request says")]
struct RequestArguments {
    /// Of create-alias, update-alias and delete-alias.
    #[arg(long, value_name = "NAME", value_parser = alias_name)]
    alias_name: Option<AliasName>,
    /// Of generate-mac and verify-mac. Default: the one of the key's spec.
    #[arg(long, value_name = "ALGORITHM", value_parser = mac_algorithm)]
    mac_algorithm: Option<MacAlgorithm>,
    /// Of create-key. Default: HMAC_256.
    #[arg(long, value_name = "SPEC")]
    key_spec: Option<KeySpec>,
    /// Of create-key and tag-resource: TagKey=KEY,TagValue=VALUE for each, or a JSON list.
    #[arg(long, num_args = 1.., value_name = "TAG", value_parser = tags::parse)]
    tags: Vec<tags::Tags>,
    /// Of untag-resource.
    #[arg(long, num_args = 1.., value_name = "KEY")]
    tag_keys: Vec<String>,
    /// Of schedule-key-deletion, 7 to 30. Default: 30.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(7..=30))]
    pending_window_in_days: Option<u32>,
    /// Of create-key and put-key-policy.
    #[arg(long)]
    bypass_policy_lockout_safety_check: bool,
    /// Of create-grant: what the grant is to allow.
    #[arg(long, num_args = 1.., value_name = "OPERATION")]
    operations: Vec<String>,
    /// Of create-grant: who is to get it.
    #[arg(long, value_name = "ARN")]
    grantee_principal: Option<String>,
    /// Of create-grant: who may retire it.
    #[arg(long, value_name = "ARN")]
    retiring_principal: Option<String>,
    /// Of create-grant: the grant's constraint.
    #[arg(long, value_name = "ARN")]
    source_arn: Option<String>,
    /// Of retire-grant: the grant that is to go.
    #[arg(long, value_name = "ID")]
    grant_id: Option<String>,
}

/// The way of the request that conditions can test. What is not given is absent.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "How the request comes")]
struct OriginArguments {
    /// Over TLS: aws:SecureTransport.
    #[arg(long)]
    secure_transport: bool,
    /// From this address: aws:SourceIp. Default: none, as over a Unix socket.
    #[arg(long, value_name = "ADDRESS")]
    source_ip: Option<IpAddr>,
    /// What the client calls itself: aws:UserAgent.
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// From when a session's certificate is valid: aws:TokenIssueTime.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    token_issue_time: Option<u64>,
    /// When, as 2026-01-31T12:00:00Z: aws:CurrentTime. Default: now.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    at: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputFormat {
    /// For people.
    Text,
    /// For programs; the members' names stay.
    Json,
}

pub(super) fn simulate(arguments: &SimulateArguments) -> Result<(), CliError> {
    arguments.refuse_misplaced()?;
    let asked = arguments.asked()?;
    let (settings, rights) = arguments.configuration.load_policies()?;
    let runtime = Builder::new_current_thread()
        .build()
        .map_err(|error| CliError::Bug(format!("no runtime: {error}")))?;
    let simulator = runtime.block_on(app::simulator(&settings, rights))?;
    let mut simulation = simulator.ask(&asked)?;
    if !simulation.is_declared {
        let known = settings.principal.iter().map(|one| &one.arn.0);
        simulation.notes.push(undeclared(&asked.caller, known));
    }
    if let (Some(store), None) = (&settings.store, simulator.revision()) {
        simulation.notes.push(format!(
            "{}: there is no catalogue yet, so only declared keys are known",
            store.sqlite.path.display()
        ));
    }
    let page = match arguments.output {
        OutputFormat::Text => text::page(&asked, &simulation),
        OutputFormat::Json => json::page(&asked, &simulation),
    };
    print(page.as_bytes())?;
    if simulation.is_allowed() {
        Ok(())
    } else {
        Err(CliError::Denied)
    }
}

impl SimulateArguments {
    fn asked(&self) -> Result<SimulatedRequest, CliError> {
        let request = &self.request;
        let policy = |file: &Option<PathBuf>, kind| {
            let read = |file: &PathBuf| kms::read_policy(Path::new(file), kind);
            let read: Result<Option<Policy>, String> = file.as_ref().map(read).transpose();
            read.map_err(CliError::Usage)
        };
        Ok(SimulatedRequest {
            caller: self.principal.clone().from(self.origin.origin()),
            operation: self.operation,
            key_id: self.key_id.clone(),
            alias_name: request.alias_name.clone(),
            mac_algorithm: request.mac_algorithm,
            key_spec: request.key_spec,
            tags: request.tags()?,
            tag_keys: request.tag_keys.clone(),
            pending_window_in_days: request.pending_window_in_days,
            bypass_policy_lockout_safety_check: request.bypass_policy_lockout_safety_check,
            new_grant: SimulatedGrant {
                operations: request.operations.clone(),
                grantee_principal: request.grantee_principal.clone(),
                retiring_principal: request.retiring_principal.clone(),
                source_arn: request.source_arn.clone(),
            },
            grant_id: request.grant_id.clone(),
            at: self.origin.at,
            identity_policy: policy(&self.policy_file, PolicyKind::Identity)?,
            key_policy: policy(&self.key_policy_file, PolicyKind::Key)?,
        })
    }

    /// Refuses a request that no client can send: its simulation would mislead.
    ///
    /// # Errors
    /// [`CliError::Usage`]
    fn refuse_misplaced(&self) -> Result<(), CliError> {
        use Operation::{
            CreateGrant, CreateKey, GenerateMac, PutKeyPolicy, RetireGrant, ScheduleKeyDeletion,
            TagResource, UntagResource, VerifyMac,
        };
        let (operation, request) = (self.operation, &self.request);
        let is = |these: &[Operation]| these.contains(&operation);
        let names_key = operation.names_key();
        for (option, given, has) in [
            (
                "--key-id",
                self.key_id.is_some(),
                names_key != NamesKey::Never,
            ),
            (
                "--alias-name",
                request.alias_name.is_some(),
                operation.names_alias(),
            ),
            (
                "--mac-algorithm",
                request.mac_algorithm.is_some(),
                is(&[GenerateMac, VerifyMac]),
            ),
            ("--key-spec", request.key_spec.is_some(), is(&[CreateKey])),
            (
                "--tags",
                !request.tags.is_empty(),
                is(&[CreateKey, TagResource]),
            ),
            (
                "--tag-keys",
                !request.tag_keys.is_empty(),
                is(&[UntagResource]),
            ),
            (
                "--pending-window-in-days",
                request.pending_window_in_days.is_some(),
                is(&[ScheduleKeyDeletion]),
            ),
            (
                "--bypass-policy-lockout-safety-check",
                request.bypass_policy_lockout_safety_check,
                is(&[CreateKey, PutKeyPolicy]),
            ),
            (
                "--operations",
                !request.operations.is_empty(),
                is(&[CreateGrant]),
            ),
            (
                "--grantee-principal",
                request.grantee_principal.is_some(),
                is(&[CreateGrant]),
            ),
            (
                "--retiring-principal",
                request.retiring_principal.is_some(),
                is(&[CreateGrant]),
            ),
            (
                "--source-arn",
                request.source_arn.is_some(),
                is(&[CreateGrant]),
            ),
            ("--grant-id", request.grant_id.is_some(), is(&[RetireGrant])),
        ] {
            if given && !has {
                let text = format!("{} has no {option}", operation.name());
                return Err(CliError::Usage(text));
            }
        }
        if self.origin.token_issue_time.is_some() && self.principal.session_role().is_none() {
            let text = format!(
                "{} is no session and has no --token-issue-time",
                self.principal
            );
            return Err(CliError::Usage(text));
        }
        for (option, given, must) in [
            (
                "--key-id",
                self.key_id.is_some(),
                names_key == NamesKey::Always,
            ),
            (
                "--alias-name",
                request.alias_name.is_some(),
                operation.names_alias(),
            ),
            ("--grant-id", request.grant_id.is_some(), is(&[RetireGrant])),
        ] {
            if must && !given {
                let text = format!("{} needs {option}", operation.name());
                return Err(CliError::Usage(text));
            }
        }
        Ok(())
    }
}

impl OriginArguments {
    fn origin(&self) -> RequestOrigin {
        RequestOrigin {
            is_secure: self.secure_transport,
            source_ip: self.source_ip,
            user_agent: self.user_agent.clone(),
            proof_issued: self.token_issue_time.map(u64::cast_signed),
        }
    }
}

impl RequestArguments {
    fn tags(&self) -> Result<Tags, CliError> {
        let tags = tags::all(self.tags.clone()).into_iter();
        let tags: Option<Vec<Tag>> = tags
            .map(|tag| Tag::new(tag.tag_key, tag.tag_value).ok())
            .collect();
        tags.and_then(|tags| Tags::new(tags).ok()).ok_or_else(|| {
            CliError::Usage(
                "--tags: a key has at most 50 tags, each key once; a tag's key has 1 to 128 characters and does not begin with aws:, its value has at most 256"
                    .into(),
            )
        })
    }
}

impl From<SimulationError> for CliError {
    fn from(error: SimulationError) -> Self {
        match error {
            SimulationError::Request(text) => Self::Usage(text),
            SimulationError::Store(text) => Self::Config(format!("hsmac: {text}")),
        }
    }
}

fn undeclared<'a>(caller: &Caller, known: impl Iterator<Item = &'a Caller>) -> String {
    // All ARNs begin alike: only what stands after the account tells them apart.
    let name = |caller: &'a Caller| caller.arn().rsplit(':').next();
    let own = known.filter(|one| one.account() == caller.account());
    let asked = caller.arn().rsplit(':').next().unwrap_or_default();
    let meant = nearest(asked, own.filter_map(name));
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    format!("no [[principal]] of the configuration has this arn{meant}")
}

/// Parses an operation by its name in KMS, in policies or on the command line.
fn operation(text: &str) -> Result<Operation, String> {
    let plain = |name: &str| name.replace('-', "").to_ascii_lowercase();
    let asked = plain(text.strip_prefix("kms:").unwrap_or(text));
    let mut all = Operation::ALL.into_iter();
    if let Some(operation) = all.find(|operation| plain(operation.name()) == asked) {
        return Ok(operation);
    }
    let names = Operation::ALL.map(|operation| (plain(operation.name()), operation.name()));
    let near = nearest(&asked, names.iter().map(|(plain, _)| plain.as_str()));
    let near = near.and_then(|near| names.iter().find(|(plain, _)| plain == near));
    Err(match near {
        Some((_, name)) => format!("no such operation; did you mean {name}?"),
        None => "no such operation; write GenerateMac, or generate-mac".into(),
    })
}

fn alias_name(text: &str) -> Result<AliasName, &'static str> {
    text.parse().map_err(|_| {
        "it must be alias/ and letters, digits, /, _ or -; at most 256 characters, and not begin with alias/aws/"
    })
}

fn mac_algorithm(text: &str) -> Result<MacAlgorithm, &'static str> {
    text.parse()
        .map_err(|()| "it must be HMAC_SHA_224, HMAC_SHA_256, HMAC_SHA_384 or HMAC_SHA_512")
}

fn seconds(text: &str) -> Result<u64, &'static str> {
    let at = DateTime::parse_from_rfc3339(text).ok();
    at.and_then(|at| at.timestamp().try_into().ok())
        .ok_or("it must be a time since 1970, as 2026-01-31T12:00:00Z")
}
