//! What the measurements come to: medians and ranges, tables in Markdown, and the chart.

use std::fmt::Write as _;

/// The results of one measurement in all rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that this share of all is below.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let position = (self.0.len().saturating_sub(1)) as f64 * share;
        self.0.get(position.round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// The median and, in brackets, the lowest and the highest value.
    pub(crate) fn text(&self, number: impl Fn(f64) -> String) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(lowest), Some(highest)) if self.0.len() > 1 => {
                format!(
                    "{} ({}–{})",
                    number(self.median()),
                    number(*lowest),
                    number(*highest)
                )
            }
            (Some(only), _) => number(*only),
            _ => "–".to_owned(),
        }
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut series = Self::default();
        series.0.extend(values);
        series.0.sort_by(f64::total_cmp);
        series
    }
}

/// A whole number with its thousands apart.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn two_digits(value: f64) -> String {
    format!("{value:.2}")
}

pub(crate) fn three_digits(value: f64) -> String {
    format!("{value:.3}")
}

/// A table in Markdown. The first column is text, the others are numbers.
pub(crate) struct Table {
    text: String,
}

impl Table {
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let mut text = format!("\n### {title}\n\n| {} |\n|---|", columns.join(" | "));
        for _ in 1..columns.len() {
            text.push_str("--:|");
        }
        text.push('\n');
        Self { text }
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    pub(crate) fn print(&self) {
        println!("{}", self.text);
    }
}

/// One group of bars: its title, and the names and lengths of the bars.
pub(crate) type Group = (String, Vec<(String, f64)>);

/// Bars for each group on a scale of its own, as an SVG.
pub(crate) fn chart(title: &str, groups: &[Group]) -> String {
    const NAMES: f64 = 270.0;
    const LONGEST: f64 = 380.0;
    const ROW: f64 = 22.0;
    let mut body = String::new();
    let mut y = 30.0;
    for (group, bars) in groups {
        y += 30.0;
        let _ = writeln!(
            body,
            r#"<text x="10" y="{y}" font-weight="bold">{}</text>"#,
            escaped(group)
        );
        y += 8.0;
        let highest = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        for (name, value) in bars {
            let width = (value / highest * LONGEST).max(1.0);
            let color = if name.starts_with("this library") {
                "#c2410c"
            } else {
                "#94a3b8"
            };
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{}" text-anchor="end">{}</text><rect x="{NAMES}" y="{}" width="{width:.0}" height="16" fill="{color}"/><text x="{:.0}" y="{}">{}</text>"#,
                NAMES - 8.0,
                y + 14.0,
                escaped(name),
                y + 2.0,
                NAMES + width + 6.0,
                y + 14.0,
                whole(*value)
            );
            y += ROW;
        }
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="740" height="{height}" viewBox="0 0 740 {height}" font-family="sans-serif" font-size="13" fill="#1e293b">
<rect width="740" height="{height}" fill="#ffffff"/>
<text x="10" y="26" font-size="16" font-weight="bold">{title}</text>
{body}</svg>
"##,
        height = y + 16.0,
        title = escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
