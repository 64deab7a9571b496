//! What `hsmac check` finds out about tokens and their keys.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    AppError, HOSTS_END,
    groups::{end_all, environment, first_state, prepare_state_dir, start_groups},
};
use crate::{
    config::{LoadedFiles, Settings},
    front, kms,
    token::{self, Logins, State},
};

/// The examination of one token by `hsmac check`.
pub struct TokenExamination {
    /// The token's name.
    pub token: String,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Its state.
    pub state: State,
    /// What the token and its module told the host that logged in.
    pub facts: Option<token::Facts>,
    /// Each declared key with the attributes that the token has for it, or why it cannot serve.
    pub keys: Vec<(kms::DeclaredKey, Result<token::KeyFacts, token::Fault>)>,
}

/// The examination of one listener: whether its address can be had.
pub struct ListenerExamination {
    /// The setting: `grpc.listen`.
    pub setting: &'static str,
    /// Where it is to listen.
    pub address: String,
    /// Why it cannot be had; none: it can.
    pub fault: Option<String>,
    /// Somebody has it: a running hsmac, or another process.
    pub is_in_use: bool,
}

/// A certificate, or a list of withdrawn ones, and when it ends.
pub struct CertificateExamination {
    /// The setting: `grpc.tls.certificate`.
    pub setting: String,
    /// When, as RFC 3339 writes it.
    pub ends: String,
    /// How many whole days that is from now; less than 0: it is over.
    pub days_left: i64,
}

/// Binds each address for a moment. Must be called inside a runtime.
pub fn examine_listeners(settings: &Settings) -> Vec<ListenerExamination> {
    let (aws, admin) = (settings.aws.as_ref(), &settings.admin);
    let socket = admin.socket.clone().map(front::Listen::Unix);
    let listeners = [
        (
            "grpc.listen",
            Some(settings.grpc.listen.clone()),
            settings.grpc.mode,
        ),
        (
            "aws.listen",
            aws.map(|aws| aws.listen.clone()),
            aws.and_then(|aws| aws.mode),
        ),
        ("admin.socket", socket, admin.mode),
        ("admin.listen", admin.listen.map(front::Listen::Tcp), None),
    ];
    let listeners = listeners.into_iter();
    listeners
        .filter_map(|(setting, listen, mode)| {
            let listen = listen?;
            let fault = front::Socket::bind(&listen, mode).err();
            Some(ListenerExamination {
                setting,
                address: listen.to_string(),
                is_in_use: fault.as_ref().is_some_and(front::BindFault::is_in_use),
                fault: fault.map(|fault| fault.to_string()),
            })
        })
        .collect()
}

/// The certificates and lists of all listeners.
pub fn examine_certificates(files: &LoadedFiles) -> Vec<CertificateExamination> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let listeners = [("grpc", &files.grpc_tls), ("aws", &files.aws_tls)];
    let with_tls = listeners
        .into_iter()
        .filter_map(|(listener, tls)| Some((listener, tls.as_ref()?)));
    with_tls
        .flat_map(|(listener, tls)| {
            tls.all_ends()
                .map(move |(setting, ends)| (listener, setting, ends))
        })
        .map(|(listener, setting, ends)| CertificateExamination {
            setting: format!("{listener}.{setting}"),
            ends: prost_types::Timestamp {
                seconds: ends,
                nanos: 0,
            }
            .to_string(),
            days_left: (ends - now).div_euclid(86_400),
        })
        .collect()
}

/// Loads each module, logs in once, and makes a MAC with each declared key.
///
/// # Errors
/// [`AppError::Configuration`]: the state folder cannot be made.
pub async fn examine(mut settings: Settings) -> Result<Vec<TokenExamination>, AppError> {
    prepare_state_dir(&settings)?;
    for token in settings.token.values_mut() {
        token.hosts = 1;
    }
    // Each token alone: in a group another token would answer for a key that this one lacks.
    let groups = start_groups(
        &settings,
        (&environment(&settings), &Logins::default()),
        |token| &token.name,
    );
    let mut examinations = Vec::new();
    for (name, group) in &groups {
        let limits = &settings.token[name];
        let (_, state) = group.states().pop().expect("a group has a token");
        let state = first_state(state, limits.start_timeout).await;
        let mut keys = Vec::new();
        if state.is_serving() {
            let here = settings.key.iter().filter(|key| {
                key.token
                    .as_ref()
                    .is_none_or(|token| token == limits.group())
            });
            for declared in here {
                let key = Arc::new(declared.token_key());
                let until = Instant::now() + limits.slow_timeout;
                keys.push((declared.clone(), group.describe(&key, until).await));
            }
        }
        examinations.push(TokenExamination {
            token: name.clone(),
            group: limits.group.clone(),
            state,
            facts: group.facts(),
            keys,
        });
    }
    let groups = groups.into_values().collect();
    end_all(groups, Instant::now() + HOSTS_END).await;
    Ok(examinations)
}
