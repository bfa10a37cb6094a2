//! For those who would rather hear that the database does not answer than wait for it: pages and probes.

use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    future::Future,
    io::{Error, ErrorKind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Statements that are remembered as unanswered; there are hardly so many.
const MOST: usize = 64;
/// One that was not asked again for so long is no longer waited for.
const STALE: Duration = Duration::from_secs(60);

/// How long a question may take, and since when none was answered.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    most: Duration,
    silences: Arc<Silences>,
}

#[derive(Debug, Default)]
struct Silences {
    reading: Mutex<Option<Silence>>,
    writing: Mutex<Option<Silence>>,
}

/// It lasts until each statement that was not answered has been: one table may be locked, and the others not.
#[derive(Debug)]
struct Silence {
    since: Timestamp,
    unanswered: u64,
    /// And when they were asked last.
    statements: BTreeMap<String, Instant>,
}

/// A database may answer the one and not the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Read,
    Write,
}

impl Question {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl Patience {
    pub fn most(&self) -> Duration {
        self.most
    }

    pub fn new(most: Duration) -> Self {
        Self { most, silences: Arc::default() }
    }

    /// Another bound, and the same account.
    pub fn bounded(&self, most: Duration) -> Self {
        Self { most, silences: self.silences.clone() }
    }

    /// The answer, or an error once it has taken too long.
    pub async fn wait<T>(
        &self,
        question: Question,
        statement: &str,
        answer: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let answer = tokio::time::timeout(self.most, answer).await.unwrap_or_else(|_| {
            let why = format!(
                "no answer within {} s; see whether it runs, and who holds its tables",
                self.most.as_secs()
            );
            Err(sqlx::Error::Io(Error::new(ErrorKind::TimedOut, why)))
        });
        match &answer {
            Ok(_) => self.answered(question, statement, Instant::now()),
            Err(error) if is_silence(error) => self.unanswered(question, statement, error, Instant::now()),
            Err(_) => {}
        }
        answer
    }

    fn of(&self, question: Question) -> &Mutex<Option<Silence>> {
        match question {
            Question::Read => &self.silences.reading,
            Question::Write => &self.silences.writing,
        }
    }

    /// One line for a silence, however many questions there are in it.
    fn unanswered(&self, question: Question, statement: &str, error: &sqlx::Error, now: Instant) {
        let mut known = self.of(question).lock().unwrap_or_else(PoisonError::into_inner);
        let silence = known.get_or_insert_with(|| {
            tracing::error!(%error, to = question.as_str(), "the database does not answer pages");
            Silence { since: Timestamp::now(), unanswered: 0, statements: BTreeMap::new() }
        });
        silence.unanswered += 1;
        if silence.statements.len() < MOST || silence.statements.contains_key(statement) {
            silence.statements.insert(statement.to_owned(), now);
        }
    }

    fn answered(&self, question: Question, statement: &str, now: Instant) {
        let mut known = self.of(question).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(silence) = &mut *known else { return };
        silence.statements.remove(statement);
        silence.statements.retain(|_, asked| now.duration_since(*asked) < STALE);
        if silence.statements.is_empty() {
            let (since, unanswered, to) = (silence.since, silence.unanswered, question.as_str());
            tracing::info!(%since, unanswered, to, "the database answers pages again");
            *known = None;
        }
    }

    /// Since when it is silent: where it is to both, the later one.
    pub fn silent_since(&self) -> Option<Timestamp> {
        let since = |question| {
            let known = self.of(question).lock().unwrap_or_else(PoisonError::into_inner);
            known.as_ref().map(|silence| silence.since)
        };
        since(Question::Read).max(since(Question::Write))
    }
}

/// Whether it says of the database that it does not work, and not of a row that it cannot be read.
fn is_silence(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Database, Io, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    matches!(error, Database(_) | Io(_) | PoolTimedOut | Protocol(_) | Tls(_) | WorkerCrashed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn what_takes_too_long_is_an_error_and_what_is_answered_ends_it() {
        let patience = Patience::new(Duration::ZERO);
        let never = pending::<sqlx::Result<()>>();
        let error = patience.wait(Question::Read, "a", never).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 0 s"), "{error}");
        let since = patience.silent_since();
        assert!(since.is_some());
        let patience = patience.bounded(Duration::from_secs(60));
        patience.wait(Question::Write, "a", ready(Ok(()))).await.unwrap();
        patience.wait(Question::Read, "a", ready(Err::<(), _>(sqlx::Error::RowNotFound))).await.unwrap_err();
        assert_eq!(patience.silent_since(), since, "that is neither");
        patience.wait(Question::Read, "a", ready(Ok(()))).await.unwrap();
        assert_eq!(patience.silent_since(), None);
    }

    #[test]
    fn a_silence_lasts_until_all_that_was_not_answered_is() {
        let (patience, start) = (Patience::new(Duration::ZERO), Instant::now());
        let (read, error) = (Question::Read, sqlx::Error::WorkerCrashed);
        patience.unanswered(read, "a", &error, start);
        let since = patience.silent_since();
        patience.unanswered(read, "b", &error, start);
        for answered in ["a", "c"] {
            patience.answered(read, answered, start);
            assert_eq!(patience.silent_since(), since, "b has no answer");
        }
        patience.answered(read, "b", start);
        assert_eq!(patience.silent_since(), None);
        // What nobody asks any more does not keep it open.
        patience.unanswered(read, "d", &error, start);
        patience.answered(read, "a", start + STALE);
        assert_eq!(patience.silent_since(), None);
    }
}
