//! Where an alert is published.

use crate::catalog::OutboxRow;

/// A topic, with `{device}`, `{source}` and `{severity}` of the alert put in.
///
/// Valid by construction for whatever is put in: AWS IoT Core takes 256 bytes, seven slashes and no `$` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(String);

/// Each field and the most bytes that are put in for it: names have 64 at most.
const FIELDS: [(&str, usize); 3] = [("{device}", 64), ("{source}", 64), ("{severity}", 16)];

impl Default for TopicTemplate {
    fn default() -> Self {
        Self("edgecloud/alerts".to_owned())
    }
}

impl std::str::FromStr for TopicTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rest = text.to_owned();
        let mut bytes = 0;
        for (field, most) in FIELDS {
            bytes += text.matches(field).count() * most;
            rest = rest.replace(field, "");
        }
        if let Some(at) = rest.find(['{', '}']) {
            return Err(format!("has `{}`", &rest[at..]));
        }
        if text.is_empty() || text.starts_with('$') || rest.contains(['+', '#', '\0']) {
            return Err("is empty, has `+` or `#`, or `$` in front".to_owned());
        }
        if bytes + rest.len() > 256 || rest.matches('/').count() > 7 {
            return Err("can be longer than 256 bytes, or has more than 7 slashes".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TopicTemplate {
    /// The topic for this alert.
    pub fn of(&self, row: &OutboxRow) -> String {
        let mut topic = self.0.replace("{device}", &row.device);
        if topic.contains('{') {
            let alert: serde_json::Value = serde_json::from_str(&row.payload).unwrap_or_default();
            for field in ["source", "severity"] {
                let value = alert[field].as_str().unwrap_or("unknown");
                topic = topic.replace(&format!("{{{field}}}"), value);
            }
        }
        topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_put_in() {
        let row = OutboxRow {
            number: 1,
            device: "pi".to_owned(),
            record: String::new(),
            payload: r#"{"source":"env","severity":"critical"}"#.to_owned(),
            attempts: 0,
            refusals: 0,
            last_error: None,
        };
        for (template, topic) in [
            ("edgecloud/alerts", "edgecloud/alerts"),
            ("a/{device}/{source}/{severity}/{device}", "a/pi/env/critical/pi"),
        ] {
            assert_eq!(template.parse::<TopicTemplate>().unwrap().of(&row), topic);
        }
    }

    #[test]
    fn what_aws_would_refuse_of_some_device_is_refused_here() {
        let long = format!("{}{{device}}", "x".repeat(200));
        for bad in ["", "$aws/x", "a/+", "a/#", "a/{it}", "a/{device", "1/2/3/4/5/6/7/8/9", &long] {
            assert!(bad.parse::<TopicTemplate>().is_err(), "{bad}");
        }
    }
}
