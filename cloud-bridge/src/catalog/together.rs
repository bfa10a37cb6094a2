//! Many rows in one statement: each statement is two switches between threads in SQLite, and a round trip in PostgreSQL,
//! which cost far more than the row.

use super::store::{Row, Tx, Value, ask};
use std::fmt::Write as _;

/// Rows in one statement at most. Fewer go as powers of two, so that few statements are kept prepared.
const MOST: usize = 64;

/// Rows for one table, each of `N` values.
pub(super) struct Rows<'q, const N: usize> {
    into: &'static str,
    then: &'static str,
    rows: Vec<[Value<'q>; N]>,
}

impl<'q, const N: usize> Rows<'q, N> {
    /// `into` is the table and its columns, `then` what comes behind the rows.
    pub fn new(into: &'static str, then: &'static str) -> Self {
        Self { into, then, rows: Vec::new() }
    }

    pub fn push(&mut self, row: [Value<'q>; N]) {
        self.rows.push(row);
    }

    /// Inserts them, in their order.
    pub async fn run(self, tx: &mut Tx) -> sqlx::Result<()> {
        for (sql, values) in self.statements(tx.numbers_values()) {
            tx.run(ask(&sql).bind_all(values)).await?;
        }
        Ok(())
    }

    /// The same where `then` has something returned.
    pub async fn returned<T: Row>(self, tx: &mut Tx) -> sqlx::Result<Vec<T>> {
        let mut returned = Vec::new();
        for (sql, values) in self.statements(tx.numbers_values()) {
            returned.extend(tx.rows::<T>(ask(&sql).bind_all(values)).await?);
        }
        Ok(returned)
    }

    /// SQLite looks for a value's number through all of the statement's, so there they have none.
    fn statements(self, numbered: bool) -> Vec<(String, Vec<Value<'q>>)> {
        let mut statements = Vec::new();
        let (mut left, mut rows) = (self.rows.len(), self.rows.into_iter());
        while left > 0 {
            let count = MOST.min(1 << left.ilog2());
            let mut sql = format!("INSERT INTO {} VALUES ", self.into);
            for row in 0..count {
                for column in 0..N {
                    let before = if column > 0 || row == 0 { "" } else { ", " };
                    let sign = if column == 0 { '(' } else { ',' };
                    let _ = match numbered {
                        true => write!(sql, "{before}{sign}${}", row * N + column + 1),
                        false => write!(sql, "{before}{sign}?"),
                    };
                }
                sql.push(')');
            }
            let _ = write!(sql, " {}", self.then);
            statements.push((sql, rows.by_ref().take(count).flatten().collect()));
            left -= count;
        }
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_by_powers_of_two() {
        let mut rows = Rows::<2>::new("t (a, b)", "ON CONFLICT DO NOTHING");
        (0..64 + 2 + 1).for_each(|n| rows.push([Value::from(n), Value::from("x")]));
        let statements = rows.statements(true);
        let lengths: Vec<_> = statements.iter().map(|(_, values)| values.len()).collect();
        assert_eq!(lengths, [128, 4, 2]);
        assert_eq!(statements[1].0, "INSERT INTO t (a, b) VALUES ($1,$2), ($3,$4) ON CONFLICT DO NOTHING");
        assert!(matches!(statements[2].1[0], Value::Int(Some(66))));
        assert_eq!(Rows::<2>::new("t (a, b)", "").statements(true).len(), 0);
        let mut rows = Rows::<2>::new("t (a, b)", "");
        (0..2).for_each(|n| rows.push([Value::from(n), Value::from("x")]));
        assert_eq!(rows.statements(false)[0].0, "INSERT INTO t (a, b) VALUES (?,?), (?,?) ");
    }
}
