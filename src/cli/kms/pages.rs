//! Lists: all pages, unless one is asked for.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::CliError;

#[derive(Args, Debug)]
pub(super) struct Pages {
    /// One page of at most so many entries, 1 to 1,000. Without it and --marker: all of them.
    #[arg(long)]
    limit: Option<i32>,
    /// One page, from the NextMarker of the page before.
    #[arg(long)]
    marker: Option<String>,
    /// At most so many entries of all pages; if there are more, the answer has a NextToken.
    #[arg(long, value_name = "N", conflicts_with_all = ["limit", "marker"], value_parser = clap::value_parser!(u32).range(1..))]
    max_items: Option<u32>,
    /// Go on where the answer with this NextToken ended.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["limit", "marker"], value_parser = StartingToken::parse)]
    starting_token: Option<StartingToken>,
    /// How many entries each call asks for, 1 to 1,000.
    #[arg(long, value_name = "N", conflicts_with_all = ["limit", "marker"])]
    page_size: Option<i32>,
}

/// Where a list goes on: at which page, and how many entries of it were printed already.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartingToken {
    marker: Option<String>,
    printed: usize,
}

impl StartingToken {
    fn parse(text: &str) -> Result<Self, String> {
        let json = STANDARD.decode(text).ok();
        let token = json.and_then(|json| serde_json::from_slice(&json).ok());
        token.ok_or_else(|| "it is no NextToken of an answer".to_owned())
    }

    fn text(&self) -> String {
        let json = serde_json::to_vec(self);
        STANDARD.encode(json.expect("a text and a number have a JSON form"))
    }
}

/// One answer of the service.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    pub(super) next_marker: Option<String>,
    pub(super) truncated: bool,
}

/// What is printed: the entries and, if one page was asked for, whether there are more.
#[derive(Debug, Default)]
pub(super) struct Listed<T> {
    pub(super) entries: Vec<T>,
    pub(super) next_marker: Option<String>,
    pub(super) truncated: Option<bool>,
    /// There are more than --max-items; where they begin.
    pub(super) next_token: Option<String>,
}

impl Pages {
    /// Asks for the page, or for one after the other.
    pub(super) async fn fetch<T>(
        self,
        page: impl AsyncFn(Option<i32>, Option<String>) -> Result<Page<T>, CliError>,
    ) -> Result<Listed<T>, CliError> {
        if self.limit.is_some() || self.marker.is_some() {
            let page = page(self.limit, self.marker).await?;
            return Ok(Listed {
                entries: page.entries,
                next_marker: page.next_marker,
                truncated: Some(page.truncated),
                next_token: None,
            });
        }
        let most = self.max_items.map_or(usize::MAX, |most| most as usize);
        let StartingToken {
            mut marker,
            mut printed,
        } = self.starting_token.unwrap_or_default();
        let mut listed = Listed {
            entries: Vec::new(),
            next_marker: None,
            truncated: None,
            next_token: None,
        };
        loop {
            let page = page(self.page_size, marker.clone()).await?;
            let there = page.entries.len();
            let room = most - listed.entries.len();
            let new = page.entries.into_iter().skip(printed).take(room);
            listed.entries.extend(new);
            let taken = printed + room.min(there.saturating_sub(printed));
            // A server that repeats its marker would keep us here for ever.
            let next = page
                .next_marker
                .filter(|next| page.truncated && marker.as_ref() != Some(next));
            if listed.entries.len() >= most && (taken < there || next.is_some()) {
                let token = if taken < there {
                    StartingToken {
                        marker,
                        printed: taken,
                    }
                } else {
                    StartingToken {
                        marker: next,
                        printed: 0,
                    }
                };
                listed.next_token = Some(token.text());
                return Ok(listed);
            }
            match next {
                Some(next) => (marker, printed) = (Some(next), 0),
                None => return Ok(listed),
            }
        }
    }
}
