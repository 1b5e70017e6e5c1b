//! Figures as a picture: a dot for each median, a line for its interval.
//!
//! Plain SVG without scripts or fonts of its own; its colours follow the
//! reader's light or dark scheme.

use std::fmt::Write as _;

use super::Row;

/// One axis with cases of one metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub(super) metric: &'static str,
    /// What the names of its cases begin with; empty: all.
    pub(super) cases: &'static str,
    pub(super) title: &'static str,
    /// Where a line is drawn: "no difference", or a goal.
    pub(super) reference: Option<f64>,
}

impl Panel {
    fn shows(&self, row: &Row) -> bool {
        row.metric == self.metric && row.case.starts_with(self.cases)
    }
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 290.0;
const RIGHT: f64 = 800.0;
const LINE: f64 = 20.0;
const HEADING: f64 = 44.0;
const FOOT: f64 = 40.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
.title{font-weight:600;font-size:15px}.tick{font-size:11px;fill:#59636e}\
.grid{stroke:#d1d9e0}.reference{stroke:#9a6700;stroke-dasharray:4 3}\
.quartiles{stroke:#54aeff;stroke-width:7;stroke-opacity:.55}\
.interval{stroke:#0550ae;stroke-width:2}.dot{fill:#0550ae}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.tick{fill:#9198a1}\
.grid{stroke:#3d444d}.reference{stroke:#d29922}.quartiles{stroke:#1f6feb}\
.interval{stroke:#79c0ff}.dot{fill:#79c0ff}}";

/// The picture, or `None` where no row has any of these metrics.
pub(super) fn svg(name: &str, panels: &[Panel], rows: &[Row]) -> Option<String> {
    let mut body = String::new();
    let mut top = 0.0;
    for panel in panels {
        let rows: Vec<&Row> = rows.iter().filter(|row| panel.shows(row)).collect();
        if !rows.is_empty() {
            draw(&mut body, panel, &rows, top);
            top += height(rows.len());
        }
    }
    (top > 0.0).then(|| {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\" \
             aria-label=\"{label}\">\n<title>{label}</title>\n<style>{STYLE}</style>\n{body}</svg>\n",
            label = escape(&alternative(name, panels, &rows_in(panels, rows)))
        )
    })
}

/// What the picture shows, for those who do not see it.
pub(super) fn alternative(name: &str, panels: &[Panel], rows: &[&Row]) -> String {
    let mut text = format!("{name}: medians with quartiles and 95 % intervals.");
    for panel in panels {
        let medians = || {
            let of_panel = rows.iter().filter(|row| panel.shows(row));
            of_panel.map(|row| row.quartiles.median)
        };
        if let (Some(least), Some(most)) = (
            medians().min_by(f64::total_cmp),
            medians().max_by(f64::total_cmp),
        ) {
            write!(
                text,
                " {}: from {} to {}.",
                panel.title,
                figure(least),
                figure(most)
            )
            .expect("a String takes every write");
        }
    }
    text
}

/// The rows that any of the panels shows.
pub(super) fn rows_in<'a>(panels: &[Panel], rows: &'a [Row]) -> Vec<&'a Row> {
    rows.iter()
        .filter(|row| panels.iter().any(|panel| panel.shows(row)))
        .collect()
}

/// As many digits as matter.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn height(rows: usize) -> f64 {
    HEADING + LINE * rows as f64 + FOOT
}

fn draw(body: &mut String, panel: &Panel, rows: &[&Row], top: f64) {
    let axis = Axis::of(panel, rows);
    let bottom = top + HEADING + LINE * rows.len() as f64;
    let mut add = |text: String| {
        body.push_str(&text);
        body.push('\n');
    };
    add(format!(
        "<text class=\"title\" x=\"12\" y=\"{}\">{}</text>",
        top + 24.0,
        escape(panel.title)
    ));
    for tick in axis.ticks() {
        let x = axis.x(tick);
        add(format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
            top + HEADING - 6.0,
            bottom + 16.0,
            figure(tick)
        ));
    }
    if let Some(reference) = panel.reference {
        let x = axis.x(reference);
        add(format!(
            "<line class=\"reference\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/>",
            top + HEADING - 6.0
        ));
    }
    for (index, row) in rows.iter().enumerate() {
        let y = top + HEADING + LINE * (index as f64 + 0.5);
        let mut line = |class: &str, from: f64, to: f64| {
            add(format!(
                "<line class=\"{class}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/>",
                axis.x(from),
                axis.x(to)
            ));
        };
        line("quartiles", row.quartiles.q1, row.quartiles.q3);
        if let Some((low, high)) = row.quartiles.interval {
            line("interval", low, high);
        }
        add(format!(
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{y}\" r=\"4\"/>\
             <text x=\"12\" y=\"{}\">{}</text>",
            axis.x(row.quartiles.median),
            y + 4.5,
            escape(&row.case)
        ));
    }
}

/// From the least to the greatest figure shown.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn of(panel: &Panel, rows: &[&Row]) -> Self {
        let mut from = panel.reference.unwrap_or(f64::INFINITY);
        let mut to = panel.reference.unwrap_or(f64::NEG_INFINITY);
        for row in rows {
            let (low, high) = row.quartiles.interval.unwrap_or((f64::NAN, f64::NAN));
            // NaN never is the lesser or the greater one.
            for figure in [row.quartiles.q1, row.quartiles.q3, low, high] {
                from = from.min(figure);
                to = to.max(figure);
            }
        }
        let margin = ((to - from) * 0.05).max(to.abs() * 1e-3).max(1e-6);
        Self {
            from: from - margin,
            to: to + margin,
        }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (value - self.from) / (self.to - self.from)
    }

    /// At round figures, about five of them.
    fn ticks(&self) -> Vec<f64> {
        let rough = (self.to - self.from) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let first = (self.from / step).ceil();
        let count = ((self.to / step).floor() - first) as usize;
        (0..=count)
            .map(|index| (first + index as f64) * step)
            .collect()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANEL: Panel = Panel {
        metric: "ratio",
        cases: "",
        title: "CPU <per> request",
        reference: Some(1.0),
    };

    fn rows() -> Vec<Row> {
        vec![
            Row::of("a & b", "ratio", vec![1.0, 1.1, 1.2]).unwrap(),
            Row::of("c", "other", vec![7.0]).unwrap(),
        ]
    }

    #[test]
    fn a_picture_has_its_cases_and_says_what_it_shows() {
        let picture = svg("overhead", &[PANEL], &rows()).unwrap();
        assert!(picture.contains("a &amp; b") && !picture.contains(">c<"));
        assert!(picture.contains("CPU &lt;per&gt; request: from 1.100 to 1.100"));
        assert!(picture.contains("prefers-color-scheme:dark"));
        assert!(!picture.contains("NaN"));
    }

    #[test]
    fn a_panel_may_show_some_cases_alone() {
        let some = Panel {
            cases: "c",
            metric: "other",
            ..PANEL
        };
        assert!(svg("x", &[some], &rows()).unwrap().contains(">c<"));
        assert_eq!(svg("x", &[Panel { cases: "a", ..some }], &rows()), None);
    }

    #[test]
    fn without_rows_there_is_no_picture() {
        assert_eq!(svg("x", &[PANEL], &[]), None);
    }

    #[test]
    fn ticks_are_round_and_on_the_axis() {
        let axis = Axis {
            from: 0.95,
            to: 1.12,
        };
        let ticks: Vec<String> = axis.ticks().into_iter().map(figure).collect();
        assert_eq!(ticks, ["0.950", "1.000", "1.050", "1.100"]);
    }

    #[test]
    fn equal_figures_still_have_an_axis() {
        let row = Row::of("same", "ratio", vec![0.0; 8]).unwrap();
        let axis = Axis::of(&PANEL, &[&row]);
        assert!(axis.x(0.0) >= LEFT && axis.x(1.0) <= RIGHT && axis.ticks().len() < 20);
    }
}
