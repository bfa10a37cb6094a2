use super::hyperparams::Hysteresis;

/// Where a row stands in an episode of anomalous rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Episode {
    /// Outside, or hysteresis is off.
    None,
    /// An episode begins with this row: the time to alert.
    Begin,
    /// The episode goes on.
    Continue,
    /// The row with which the episode is over.
    End,
}

/// Counts rows into episodes.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Episodes {
    open: bool,
    /// Rows in a row that speak for a change: anomalous ones outside, ordinary ones inside.
    against: u32,
}

impl Episodes {
    pub(super) fn next(&mut self, rule: Option<Hysteresis>, anomalous: bool) -> Episode {
        let Some(rule) = rule else { return Episode::None };
        self.against = if anomalous == self.open { 0 } else { self.against.saturating_add(1) };
        let enough = if self.open { rule.quiet_rows } else { rule.rows_to_begin };
        let turns = self.against >= enough;
        let now = match (self.open, turns) {
            (false, true) => Episode::Begin,
            (false, false) => Episode::None,
            (true, false) => Episode::Continue,
            (true, true) => Episode::End,
        };
        if turns {
            self.open = !self.open;
            self.against = 0;
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alert_an_episode() {
        let rule = Some(Hysteresis { rows_to_begin: 2, quiet_rows: 3 });
        let mut episodes = Episodes::default();
        let rows = [false, true, false, true, true, true, false, false, true, false, false, false, false];
        let got: String = rows
            .iter()
            .map(|&row| match episodes.next(rule, row) {
                Episode::None => '.',
                Episode::Begin => 'B',
                Episode::Continue => '-',
                Episode::End => 'E',
            })
            .collect();
        assert_eq!(got, "....B------E.");
    }

    #[test]
    fn without_hysteresis_there_are_none() {
        assert_eq!(Episodes::default().next(None, true), Episode::None);
    }
}
