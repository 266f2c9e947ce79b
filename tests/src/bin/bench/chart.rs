//! A chart for each figure: one bar for each contender, with its spread.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Report, short};

/// Draws every figure that was measured into `directory`.
pub(crate) fn draw(report: &Report, directory: &Path) -> anyhow::Result<()> {
    for figure in report.figures() {
        let bars: Vec<_> = report
            .contenders()
            .filter_map(|contender| Some((contender, report.spread(contender, figure)?)))
            .collect();
        let most = bars.iter().map(|(_, spread)| spread.most).fold(0.0, f64::max);
        if most <= 0.0 {
            continue;
        }
        let file = directory.join(format!("{}.svg", figure.file()));
        let height = TOP + BAR * i32::try_from(bars.len())? + 10;
        let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
        let area = SVGBackend::new(&file, size).into_drawing_area();
        let broken = |why: &dyn std::fmt::Display| anyhow!("{}: {why}", file.display());
        area.fill(&WHITE).map_err(|e| broken(&e))?;
        let text = ("sans-serif", 14).into_font();
        let at = |h, v| text.clone().into_text_style(&area).pos(Pos::new(h, v));
        let (head, left) = (at(HPos::Left, VPos::Center), at(HPos::Right, VPos::Center));
        area.draw_text(figure.words(), &head, (10, TOP / 2)).map_err(|e| broken(&e))?;
        #[expect(clippy::cast_possible_truncation, reason = "within the picture")]
        let place = |value: f64| LEFT + (value.max(0.0) / most * f64::from(LENGTH)) as i32;
        for (row, (contender, spread)) in (0..).zip(&bars) {
            let y = TOP + BAR * row;
            let middle = y + BAR / 2;
            let ours = contender.name().starts_with("oe-node");
            let colour = if ours { RGBColor(31, 119, 180) } else { RGBColor(170, 178, 189) };
            let corners = [(LEFT, y + 3), (place(spread.median), y + BAR - 3)];
            let line = [(place(spread.least), middle), (place(spread.most), middle)];
            area.draw(&Rectangle::new(corners, colour.filled())).map_err(|e| broken(&e))?;
            area.draw(&PathElement::new(line, BLACK)).map_err(|e| broken(&e))?;
            area.draw_text(contender.name(), &left, (LEFT - 8, middle)).map_err(|e| broken(&e))?;
            let end = (place(spread.most) + 8, middle);
            area.draw_text(&short(spread.median), &head, end).map_err(|e| broken(&e))?;
        }
        area.present().map_err(|e| broken(&e))?;
    }
    Ok(())
}

const WIDTH: i32 = 820;
/// Where bars begin, and how long the longest is.
const LEFT: i32 = 230;
const LENGTH: i32 = 510;
/// Height of the heading, and of a bar.
const TOP: i32 = 40;
const BAR: i32 = 28;
