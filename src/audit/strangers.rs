//! Calls of peers who did not prove who they are: counted by source and exception, so that they cost a record a minute
//! and not one each.

use std::{collections::BTreeMap, net::IpAddr};

use crate::proto::audit::Strangers;

/// The calls since they were taken last.
#[derive(Debug, Default)]
pub(super) struct Counted {
    by_source: BTreeMap<(Option<IpAddr>, &'static str), (u64, u64)>,
}

impl Counted {
    /// One more, at a time in microseconds since 1970.
    pub(super) fn count(&mut self, source: Option<IpAddr>, exception: &'static str, time: u64) {
        let is_known = self.by_source.contains_key(&(source, exception));
        // Security: strangers with many addresses cost no more memory than this.
        let has_room = is_known || self.by_source.len() < MOST;
        let key = (source.filter(|_| has_room), exception);
        let (count, last) = self.by_source.entry(key).or_default();
        *count += 1;
        *last = time;
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Strangers> + use<> {
        std::mem::take(&mut self.by_source).into_iter().map(
            |((source, exception), (count, time))| Strangers {
                time,
                source: source.map_or_else(String::new, |source| source.to_string()),
                exception: exception.to_owned(),
                count,
            },
        )
    }
}

/// How many sources are told apart in a minute.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_counted_by_source_and_what_is_too_many_together() {
        let mut counted = Counted::default();
        for host in 0..2000_u32 {
            let source = Some(IpAddr::from(host.to_be_bytes()));
            counted.count(source, "AccessDeniedException", u64::from(host));
            counted.count(source, "AccessDeniedException", u64::from(host));
        }
        let taken: Vec<_> = counted.take().collect();
        assert_eq!(taken.len(), MOST + 1);
        assert_eq!(taken.iter().map(|one| one.count).sum::<u64>(), 4000);
        assert_eq!(taken[0].source, "");
        assert_eq!(
            (taken[1].source.as_str(), taken[1].count, taken[1].time),
            ("0.0.0.0", 2, 0)
        );
        assert_eq!(counted.take().count(), 0);
    }
}
