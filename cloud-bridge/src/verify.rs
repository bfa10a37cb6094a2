//! Whether what is stored agrees with itself: every image and every dead letter that says so has its object, every
//! object its row, and the account of sequences is what the rows say.

use crate::{
    catalog::{Catalog, CatalogError, Gap, OutboxCount, Sequences},
    objects::{ObjectError, Objects},
};
use serde::Serialize;

/// One finding, as a JSON line.
#[derive(Debug, Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Finding {
    /// What arrived of one lane of one boot.
    Sequence {
        /// By the account, which is held against the rows.
        #[serde(flatten)]
        gap: Gap,
        /// Records that should be there, counted from 0, and are not.
        missing: i64,
    },
    /// The account that is kept with every commit says something else.
    WrongAccount {
        /// As accounted for.
        #[serde(flatten)]
        gap: Gap,
    },
    /// Rows without an account.
    NoAccount {
        /// Counted from the rows.
        #[serde(flatten)]
        gap: Gap,
    },
    /// What goes on to somebody else.
    Outbox {
        /// To whom, and how many alerts.
        #[serde(flatten)]
        outbox: OutboxCount,
    },
    /// A row without its object.
    NoObject {
        /// Its key.
        object: String,
    },
    /// An object of another length than its row says.
    WrongLength {
        /// Its key.
        object: String,
        /// Bytes by the row.
        wanted: i64,
        /// Bytes there.
        bytes: u64,
    },
    /// An object without a row.
    NoRow {
        /// Its key.
        object: String,
    },
}

impl Finding {
    /// Whether the store contradicts itself. A gap alone may be a device's own dropping.
    pub fn is_wrong(&self) -> bool {
        !matches!(self, Self::Sequence { .. } | Self::Outbox { .. })
    }

    /// Whether a record is not there.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Sequence { missing, .. } if *missing != 0)
    }
}

/// Why it could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The object store failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

/// What follows the key of an image in that of its small one: without a row, made anew when it is missing.
const THUMBNAIL: &str = ".thumb.jpg";

/// Looks at everything. While a bridge runs, what it is just writing may show as an object without a row.
pub async fn verify(catalog: &Catalog, objects: &Objects) -> Result<Vec<Finding>, VerifyError> {
    // Objects are listed before rows are read: an object is there before its row.
    let there = objects.list().await?;
    let mut rows = catalog.image_objects().await?;
    rows.extend(catalog.dead_objects().await?);
    let films = catalog.film_objects().await?;
    // Of one in the making nothing can be said.
    let unfinished: Vec<_> =
        films.iter().filter(|(_, bytes)| bytes.is_none()).map(|(object, _)| object.clone()).collect();
    rows.extend(films.into_iter().filter_map(|(object, bytes)| Some((object, bytes?))));
    let Sequences { accounted, counted } = catalog.sequences().await?;
    let mut findings = Vec::new();
    let same = |a: &Gap, b: &Gap| (&a.device, &a.boot, &a.lane) == (&b.device, &b.boot, &b.lane);
    for account in &accounted {
        let right = match counted.iter().find(|rows| same(rows, account)) {
            Some(rows) => account.accounts_for(rows),
            None => account.expired == account.count,
        };
        if !right {
            findings.push(Finding::WrongAccount { gap: account.clone() });
        }
    }
    for gap in &counted {
        if !accounted.iter().any(|account| same(account, gap)) {
            findings.push(Finding::NoAccount { gap: gap.clone() });
        }
    }
    // Where rows have expired only the account knows what arrived.
    let expired = |gap: &Gap| accounted.iter().find(|account| account.expired > 0 && same(account, gap));
    let mut arrived: Vec<Gap> = counted.iter().map(|gap| expired(gap).unwrap_or(gap).clone()).collect();
    let is_gone = |account: &&Gap| account.expired > 0 && !counted.iter().any(|gap| same(account, gap));
    arrived.extend(accounted.iter().filter(is_gone).cloned());
    findings.extend(arrived.into_iter().map(|gap| Finding::Sequence { missing: gap.missing(), gap }));
    findings.extend(catalog.outbox_counts().await?.into_iter().map(|outbox| Finding::Outbox { outbox }));
    let is_image = |object: &str| rows.contains_key(object);
    let is_thumbnail = |object: &str| object.strip_suffix(THUMBNAIL).is_some_and(is_image);
    let there: Vec<_> = there
        .into_iter()
        .filter(|(object, _)| !is_thumbnail(object) && !unfinished.contains(object))
        .collect();
    for (object, bytes) in there {
        match rows.remove(&object) {
            None => findings.push(Finding::NoRow { object }),
            Some(wanted) if u64::try_from(wanted) != Ok(bytes) => {
                findings.push(Finding::WrongLength { object, wanted, bytes });
            }
            Some(_) => {}
        }
    }
    findings.extend(rows.into_keys().map(|object| Finding::NoObject { object }));
    Ok(findings)
}
