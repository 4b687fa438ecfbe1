//! The run as one SVG: throughput against the base, CPU per request, percentile curves. Pure; only rectangles, lines and text.

use std::fmt::Write;

use crate::bench::claims::Spread;
use crate::bench::report::{Cell, Run, figure};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 240.0;
const BAR: f64 = 15.0;
const ROW_GAP: f64 = 10.0;
const CURVE_HEIGHT: f64 = 260.0;

const COLOURS: [(&str, &str); 16] = [
    ("direct", "#8a8f98"),
    ("crossfade", "#0b7285"),
    ("crossfade-2-cores", "#3bc9db"),
    ("crossfade-no-policies", "#99e9f2"),
    ("crossfade-no-telemetry", "#66d9e8"),
    ("crossfade-dual", "#1864ab"),
    ("crossfade-dual-lane", "#4dabf7"),
    ("crossfade-replica", "#74c0fc"),
    ("crossfade-migrating", "#1864ab"),
    ("crossfade-migrating-lane", "#4dabf7"),
    ("haproxy", "#e8590c"),
    ("nutcracker", "#f08c00"),
    ("pgbouncer-session", "#5f3dc4"),
    ("pgbouncer-transaction", "#9775fa"),
    ("pgpool", "#c2255c"),
    ("", "#333333"),
];

fn colour(contestant: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == contestant).unwrap_or(&COLOURS[COLOURS.len() - 1]).1
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Drawing {
    body: String,
    y: f64,
}

impl Drawing {
    fn text(&mut self, x: f64, y: f64, attributes: &str, words: &str) {
        let _ = writeln!(self.body, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{}</text>", escaped(words));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), stroke: &str) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\"/>"
        );
    }

    fn title(&mut self, words: &str) {
        self.y += 34.0;
        self.text(10.0, self.y, "font-size=\"16\" font-weight=\"bold\"", words);
        self.y += 12.0;
    }

    /// Horizontal bars, grouped by load, with whiskers from the least to the most. With a `mark` all loads share a scale, otherwise each load has
    /// its own.
    fn bars(
        &mut self,
        title: &str,
        cells: &[Cell<'_>],
        value: impl Fn(&Cell<'_>) -> Option<Spread>,
        mark: Option<f64>,
    ) {
        let most = cells.iter().filter_map(&value).map(|of| of.most).fold(0.0, f64::max);
        if most <= 0.0 {
            return;
        }
        self.title(title);
        let (top, room) = (self.y, WIDTH - LEFT - 190.0);
        let mut scale = room / most;
        let mut load = None;
        for cell in cells {
            let Some(of) = value(cell) else { continue };
            if load != Some((cell.load, cell.alone)) {
                load = Some((cell.load, cell.alone));
                self.y += ROW_GAP;
                self.text(10.0, self.y + BAR - 3.0, "font-size=\"12\"", &cell.title());
                if mark.is_none() {
                    let same = cells.iter().filter(|other| (other.load, other.alone) == (cell.load, cell.alone));
                    scale = room / same.filter_map(&value).map(|of| of.most).fold(f64::MIN_POSITIVE, f64::max);
                }
            }
            let (y, length) = (self.y, of.median * scale);
            let fill = colour(cell.contestant);
            let _ = writeln!(
                self.body,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
                BAR - 2.0
            );
            let middle = y + BAR / 2.0 - 1.0;
            self.line((LEFT + of.least * scale, middle), (LEFT + of.most * scale, middle), "#000");
            let words = format!("{} {}", figure(of.median), cell.contestant);
            self.text(LEFT + of.most * scale + 5.0, y + BAR - 4.0, "font-size=\"11\"", &words);
            self.y += BAR;
        }
        if let Some(mark) = mark {
            self.line((LEFT + mark * scale, top), (LEFT + mark * scale, self.y), "#c92a2a");
        }
    }

    /// Latency over percentile, both logarithmic, the median repetition of each contestant.
    fn curves(&mut self, run: &Run, load: &str) {
        let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
        for cell in run.cells().iter().filter(|cell| cell.load == load) {
            let mut ours: Vec<_> =
                run.samples.iter().filter(|s| s.load == load && s.contestant == cell.contestant).collect();
            ours.sort_by(|a, b| {
                f64::total_cmp(a.metrics.get("p99_us").unwrap_or(&0.0), b.metrics.get("p99_us").unwrap_or(&0.0))
            });
            if let Some(curve) = ours.get(ours.len() / 2).and_then(|sample| sample.curve.as_ref()?.as_array()) {
                let points = curve.iter().filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?.max(1.0))));
                lines.push((cell.contestant, points.filter(|(quantile, _)| *quantile < 0.999_99).collect()));
            }
        }
        let most = lines.iter().flat_map(|(_, points)| points).map(|(_, us)| *us).fold(10.0, f64::max).log10().ceil();
        self.title(&format!("{load}: latency from the intended send time, µs, by percentile"));
        let (top, width) = (self.y + 6.0, WIDTH - 200.0);
        let x = |quantile: f64| 60.0 + (-(1.0 - quantile).log10()) / 5.0 * (width - 60.0);
        let y = |us: f64| top + CURVE_HEIGHT * (1.0 - us.log10() / most);
        for decade in 0..=(most as i32) {
            let at = 10f64.powi(decade);
            self.line((60.0, y(at)), (width, y(at)), "#ddd");
            self.text(5.0, y(at) + 4.0, "font-size=\"11\"", &format!("{at}"));
        }
        for (quantile, words) in [(0.0, "0"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")] {
            self.line((x(quantile), top), (x(quantile), top + CURVE_HEIGHT), "#ddd");
            self.text(x(quantile) - 12.0, top + CURVE_HEIGHT + 14.0, "font-size=\"11\"", words);
        }
        for (number, (who, points)) in lines.iter().enumerate() {
            let path: Vec<String> =
                points.iter().map(|(quantile, us)| format!("{:.1},{:.1}", x(*quantile), y(*us))).collect();
            let stroke = colour(who);
            let _ = writeln!(
                self.body,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.5\"/>",
                path.join(" ")
            );
            let attributes = format!("font-size=\"12\" fill=\"{stroke}\"");
            self.text(width + 10.0, top + 14.0 + number as f64 * 16.0, &attributes, who);
        }
        self.y = top + CURVE_HEIGHT + 20.0;
    }
}

/// The whole picture.
#[must_use]
pub fn svg(run: &Run) -> String {
    let mut drawing = Drawing { body: String::new(), y: 22.0 };
    let said = |name: &str| run.machine[name].as_str().unwrap_or("?").to_owned();
    let kind = if run.quick { "QUICK run, not for quoting" } else { "full run" };
    let heading = format!("Crossfade and its peers: {kind}, {} repetitions, {}", run.repetitions, said("date"));
    drawing.text(10.0, 22.0, "font-size=\"18\" font-weight=\"bold\"", &heading);
    let machine = format!(
        "{}, {} cores, {}; load average before: {}",
        said("processor"),
        run.machine["cores"],
        said("kernel"),
        run.load_before
    );
    drawing.text(10.0, 40.0, "font-size=\"12\"", &machine);
    drawing.y = 44.0;
    let cells = run.cells();
    // At a fixed rate all contestants that keep up reach the same throughput.
    let ratio = |cell: &Cell<'_>| cell.ratio.filter(|_| !cell.metrics.contains_key("p99_us"));
    drawing.bars(
        "Throughput over that of direct (or, without it, of pass-through) in the same repetition",
        &cells,
        ratio,
        Some(1.0),
    );
    let cpu = |cell: &Cell<'_>| cell.metrics.get("proxy_cpu_us").copied();
    drawing.bars("CPU time of the proxy, µs per request (each load has its own scale)", &cells, cpu, None);
    let memory = |cell: &Cell<'_>| cell.metrics.get("bytes_each").copied();
    drawing.bars("User memory per idle connection, bytes (the line: 4096)", &cells, memory, Some(4096.0));
    let copied = |cell: &Cell<'_>| cell.metrics.get("keys_per_s").copied();
    drawing.bars("Backfill, keys per second (each load has its own scale)", &cells, copied, None);
    let mut loads: Vec<&str> = run.samples.iter().filter(|s| s.curve.is_some()).map(|s| s.load.as_str()).collect();
    loads.dedup();
    loads.sort_unstable();
    loads.dedup();
    loads.into_iter().for_each(|load| drawing.curves(run, load));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" font-family=\"sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
        drawing.body,
        height = drawing.y + 30.0
    )
}

#[cfg(test)]
mod tests {
    use crate::bench::report::tests::example;

    #[test]
    fn it_is_well_formed_and_has_every_contestant() {
        let picture = super::svg(&example());
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        for tag in ["text", "svg"] {
            assert_eq!(
                picture.matches(&format!("<{tag} ")).count(),
                picture.matches(&format!("</{tag}>")).count(),
                "{tag}"
            );
        }
        assert!(picture.contains(">0.875 crossfade<") && picture.contains("<polyline "), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn an_empty_run_is_a_picture_too() {
        assert!(super::svg(&crate::bench::report::Run::default()).contains("</svg>"));
    }
}
