//! A plot as SVG: horizontal bars on a ground that may be light or dark.

/// One bar of a plot.
pub struct Row {
    /// What stands left of it.
    pub label: String,
    /// How long it is.
    pub value: f64,
    /// Where its spread begins and ends.
    pub spread: (f64, f64),
    /// What stands right of it.
    pub text: String,
    /// Whether it is ours.
    pub ours: bool,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 44.0;
const STEP: f64 = 30.0;
const THICK: f64 = 16.0;

/// Colours that are told apart on white and on black, also by those who see no red or green.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:15px}\
    .ours{fill:#1f77b4}.theirs{fill:#9a9a9a}.spread{stroke:#555;stroke-width:1.5}.axis{stroke:#999}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.ours{fill:#5aa9e6}.theirs{fill:#888}.spread{stroke:#ccc}}";

/// Draws the rows, the longest as long as there is room.
pub fn svg(title: &str, rows: &[Row]) -> String {
    let longest = rows.iter().map(|row| row.value.max(row.spread.1)).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let height = TOP + STEP * rows.len() as f64 + 12.0;
    let drawn: String = rows.iter().enumerate().map(|(at, row)| bar(row, TOP + STEP * at as f64, scale)).collect();
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n<text class=\"title\" x=\"12\" y=\"24\">{title}</text>\n\
         {drawn}<line class=\"axis\" x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{:.0}\"/>\n</svg>\n",
        height - 12.0
    )
}

fn bar(row: &Row, y: f64, scale: f64) -> String {
    let class = if row.ours { "ours" } else { "theirs" };
    let (length, from, to) = (row.value * scale, LEFT + row.spread.0 * scale, LEFT + row.spread.1 * scale);
    let (middle, baseline) = (y + STEP / 2.0, y + STEP / 2.0 + 4.5);
    let (label, text) = (escaped(&row.label), escaped(&row.text));
    format!(
        "<text x=\"{:.0}\" y=\"{baseline}\" text-anchor=\"end\">{label}</text>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"{THICK}\"/>\
         <line class=\"spread\" x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\"/>\
         <text x=\"{:.1}\" y=\"{baseline}\">{text}</text>\n",
        LEFT - 10.0,
        middle - THICK / 2.0,
        (LEFT + length).max(to) + 8.0
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room_and_texts_are_escaped() {
        let row = |label: &str, value: f64| Row {
            label: label.to_owned(),
            value,
            spread: (value * 0.9, value),
            text: "1 s".to_owned(),
            ours: value < 5.0,
        };
        let svg = svg("a < b & \"c\"", &[row("docker build", 10.0), row("native", 1.0)]);
        assert!(svg.contains("width=\"400.0\"") && svg.contains("width=\"40.0\""), "{svg}");
        assert!(svg.contains("aria-label=\"a &lt; b &amp; &quot;c&quot;\""), "{svg}");
        assert_eq!(svg.matches("class=\"ours\"").count(), 1);
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn nothing_to_draw_is_no_fault() {
        assert!(svg("x", &[]).ends_with("</svg>\n"));
    }
}
