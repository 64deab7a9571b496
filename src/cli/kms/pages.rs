//! Lists: all pages, unless one is asked for.

use clap::Args;

use crate::cli::CliError;

#[derive(Args, Debug)]
pub(super) struct Pages {
    /// One page of at most so many entries, 1 to 1,000. Without it and --marker: all of them.
    #[arg(long)]
    limit: Option<i32>,
    /// One page, from the NextMarker of the page before.
    #[arg(long)]
    marker: Option<String>,
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
            });
        }
        let mut entries = Vec::new();
        let mut marker = None;
        loop {
            let page = page(None, marker.clone()).await?;
            entries.extend(page.entries);
            // A server that repeats its marker would keep us here for ever.
            if !page.truncated || page.next_marker.is_none() || page.next_marker == marker {
                return Ok(Listed {
                    entries,
                    next_marker: None,
                    truncated: None,
                });
            }
            marker = page.next_marker;
        }
    }
}
