use std::{collections::HashMap, fmt, fs, net::SocketAddr, sync::Arc};

use super::DeclaredPrincipal;
use crate::model::Caller;

/// Who is on the other end of a connection, as far as the kernel tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix {
        /// Its user.
        uid: Option<u32>,
        /// Its process ID when it connected.
        pid: Option<i32>,
    },
}

/// Who callers are, by what the kernel says of them.
#[derive(Debug)]
pub(super) struct Callers {
    by_uid: HashMap<u32, Arc<Caller>>,
    /// Everybody else.
    anonymous: Option<Arc<Caller>>,
}

impl Callers {
    pub(super) fn new(principals: &[DeclaredPrincipal], anonymous: Option<&Caller>) -> Self {
        let overflow = overflow_uid();
        let by_uid = principals
            .iter()
            .filter_map(|principal| Some((principal.unix_uid?, principal)))
            // Security: the kernel shows this one for every user that it cannot name here, such as
            // those of another user namespace.
            .filter(|(uid, _)| *uid != overflow)
            .map(|(uid, principal)| (uid, Arc::new(principal.arn.0.clone())))
            .collect();
        Self {
            by_uid,
            anonymous: anonymous.cloned().map(Arc::new),
        }
    }

    /// Who sends a connection's requests; nobody whom the settings know, if none.
    pub(super) fn of(&self, peer: &Peer) -> Option<Arc<Caller>> {
        let by_uid = match peer {
            Peer::Unix { uid: Some(uid), .. } => self.by_uid.get(uid),
            Peer::Unix { uid: None, .. } | Peer::Tcp(_) => None,
        };
        by_uid.or(self.anonymous.as_ref()).cloned()
    }
}

fn overflow_uid() -> u32 {
    fs::read_to_string("/proc/sys/kernel/overflowuid")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_534)
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix {
                uid: Some(uid),
                pid: Some(pid),
            } => write!(f, "uid {uid} pid {pid}"),
            Self::Unix {
                uid: Some(uid),
                pid: None,
            } => write!(f, "uid {uid}"),
            Self::Unix { uid: None, pid: _ } => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::Principal;

    fn principal(name: &str, unix_uid: Option<u32>) -> DeclaredPrincipal {
        let arn = format!("arn:aws:iam::111122223333:user/{name}");
        DeclaredPrincipal {
            arn: Principal(Caller::parse(&arn).unwrap()),
            unix_uid,
            access_key_id: None,
            secret_access_key_file: None,
            policy_file: None,
        }
    }

    #[test]
    fn a_uid_proves_who_it_is_and_the_overflow_uid_proves_nothing() {
        let principals = [
            principal("billing", Some(1000)),
            principal("root", Some(0)),
            principal("lost", Some(overflow_uid())),
            principal("elsewhere", None),
        ];
        let anonymous = Caller::parse("arn:aws:iam::111122223333:user/anybody").unwrap();
        let strict = Callers::new(&principals, None);
        let lax = Callers::new(&principals, Some(&anonymous));
        let unix = |uid| Peer::Unix { uid, pid: Some(1) };
        for (peer, name) in [
            (unix(Some(1000)), Some("billing")),
            (unix(Some(0)), Some("root")),
            (unix(Some(1001)), None),
            (unix(Some(overflow_uid())), None),
            (unix(None), None),
            (Peer::Tcp(([127, 0, 0, 1], 1000).into()), None),
        ] {
            let arn = |name: &str| format!("arn:aws:iam::111122223333:user/{name}");
            let found = |callers: &Callers| callers.of(&peer).map(|caller| caller.arn().to_owned());
            assert_eq!(found(&strict), name.map(arn), "{peer}");
            assert_eq!(found(&lax), Some(arn(name.unwrap_or("anybody"))), "{peer}");
        }
    }
}
