//! Texts in the form that people read.

use std::time::SystemTime;

use parse_livequery::Date;
use unicode_bidi::BidiInfo;

/// How long ago the date was. A server's clock may be ahead of ours.
pub fn ago(date: Date) -> String {
    let past = SystemTime::now().duration_since(date.into()).unwrap_or_default();
    let seconds = past.as_secs();
    match seconds {
        0..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        86_400..2_592_000 => format!("{} d ago", seconds / 86_400),
        // Only the day.
        _ => date.to_string().chars().take(10).collect(),
    }
}

/// The letters in the order and the shapes in which they are seen: egui draws them one by one, from left to
/// right, and joins none.
pub fn as_seen(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let joined = ar_reshaper::reshape_line(text);
    let info = BidiInfo::new(&joined, None);
    let lines = info.paragraphs.iter();
    lines
        .map(|line| info.reorder_line(line, line.range.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{ago, as_seen};

    #[test]
    fn a_time_is_told_in_the_largest_unit_that_fits() {
        let ago = |seconds| ago((SystemTime::now() - Duration::from_secs(seconds)).into());
        assert_eq!(ago(0), "just now");
        assert!(ago(30).ends_with(" s ago"));
        assert_eq!(ago(150), "2 min ago");
        assert_eq!(ago(7_300), "2 h ago");
        assert_eq!(ago(5 * 86_400 + 100), "5 d ago");
        assert_eq!(
            super::ago("2020-05-04T03:02:01.000Z".parse().unwrap()),
            "2020-05-04"
        );
        assert_eq!(
            super::ago("2999-05-04T03:02:01.000Z".parse().unwrap()),
            "just now"
        );
    }

    #[test]
    fn letters_of_arabic_are_joined_and_go_from_right_to_left() {
        // Seen, lam, alef, meem: the ligature of lam and alef, and the last letter first.
        assert_eq!(as_seen("سلام"), "\u{fee1}\u{fefc}\u{feb3}");
        assert_eq!(as_seen("שלום 2"), "2 םולש");
        assert_eq!(as_seen("围棋 go"), "围棋 go");
    }
}
