//! The write budget: how often to commit when the disk is to last.

use std::time::Duration;

const DAY: u64 = 86_400;
/// However far the budget is overdrawn, records do not wait longer than this for their commit.
const LONGEST: Duration = Duration::from_secs(600);

/// Bytes that may be written a day, and how they are spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBudget {
    /// The setting.
    pub per_day: u64,
    /// What may be written at once: what was not used of the last hour. Below zero it is overdrawn.
    pub left: i64,
    /// The commit interval while it is overdrawn: longer than the one that was asked for.
    pub stretched: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Pace {
    budget: Option<WriteBudget>,
    last: Duration,
    written: u64,
}

impl Pace {
    pub fn new(per_day: Option<u64>) -> Self {
        let budget = per_day.map(|per_day| WriteBudget { per_day, left: an_hour(per_day), stretched: None });
        Self { budget, last: Duration::ZERO, written: 0 }
    }

    pub const fn budget(&self) -> Option<WriteBudget> {
        self.budget
    }

    /// `written` counts from open; `now` from any moment on, by a clock that is never put back.
    pub fn next(&mut self, interval: Duration, now: Duration, written: u64) -> Duration {
        let Some(budget) = &mut self.budget else { return interval };
        let earned =
            now.saturating_sub(self.last).as_millis() * u128::from(budget.per_day) / u128::from(DAY * 1000);
        let spent = written - self.written.min(written);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        budget.left = budget.left.saturating_add(earned).min(an_hour(budget.per_day)).saturating_sub(spent);
        (self.last, self.written) = (now, written);
        let overdrawn = u64::try_from(budget.left.saturating_neg()).unwrap_or(0);
        let wait = Duration::from_secs(overdrawn.saturating_mul(DAY) / budget.per_day.max(1));
        let next = wait.min(LONGEST).max(interval);
        let stretched = (next > interval).then_some(next);
        if stretched.is_some() && budget.stretched.is_none() {
            tracing::warn!(
                per_day = budget.per_day,
                next_commit_s = next.as_secs(),
                "the spool's write budget is used up: commits are further apart until it has recovered"
            );
        }
        budget.stretched = stretched;
        next
    }
}

fn an_hour(per_day: u64) -> i64 {
    i64::try_from(per_day / 24).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_further_apart_while_the_budget_is_overdrawn_and_keep_to_it_over_a_day() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(Some(DAY * 1000));
        let (mut now, mut written, mut commits) = (Duration::ZERO, 0, 0);
        while now < Duration::from_secs(DAY) {
            // Each commit costs a page at least, whatever waited: 4 KB a second is four times the budget.
            written += 4096;
            commits += 1;
            now += pace.next(second, now, written);
        }
        assert!((DAY * 1000..DAY * 1000 + DAY * 1000 / 20).contains(&written), "{written}");
        assert!(commits < 23_000, "{commits}");
        assert!(pace.budget().unwrap().stretched.is_some());
        // A flood of a day's budget: ten minutes are the longest.
        written += DAY * 1000;
        assert_eq!(pace.next(second, now, written), LONGEST);
        // Two idle days later all is as before.
        assert_eq!(pace.next(second, now * 3, written), second);
        assert_eq!(pace.budget().unwrap().stretched, None);
        assert_eq!(Pace::new(None).next(second, now, 1 << 50), second);
    }
}
