//! The screen, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Chart, Dataset, GraphType, LegendPosition, LineGauge, Paragraph,
};
use stunet::train::EpochRecord;

use super::Board;
use crate::output;

/// Smallest screen with curves; a smaller one has words only.
const SMALLEST: (u16, u16) = (56, 16);
const FAINT: Style = Style::new().fg(Color::DarkGray);

/// Draws a run on the whole screen.
pub fn draw(frame: &mut Frame<'_>, board: &Board) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new(words(board)), area);
        return;
    }
    let rows = [Constraint::Length(5), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(area);
    draw_head(frame, board, head);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(body);
    let [loss, rate] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(left);
    let [dice, classes] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(right);
    let losses = [
        ("training", Color::Blue, points(board, |record| Some(record.train_loss))),
        ("validation", Color::Red, points(board, |record| record.val_loss)),
    ];
    curves(frame, loss, (board, " Loss "), &losses, None);
    let dices = [
        ("mean", Color::Cyan, points(board, |record| record.pseudo_dice)),
        ("moving average", Color::Green, points(board, |record| record.ema_pseudo_dice)),
    ];
    curves(frame, dice, (board, " Pseudo-Dice "), &dices, Some([0.0, 1.0]));
    let title = match board.epochs.last() {
        Some(record) => format!(" Learning rate: {:.2e} ", record.lr),
        None => " Learning rate ".to_owned(),
    };
    let rates = [("", Color::Yellow, points(board, |record| Some(record.lr)))];
    curves(frame, rate, (board, &title), &rates, None);
    draw_classes(frame, board, classes);
    frame.render_widget(Paragraph::new(last_line(board)), foot);
}

type Curve<'a> = (&'a str, Color, Vec<(f64, f64)>);

fn points(board: &Board, value: impl Fn(&EpochRecord) -> Option<f64>) -> Vec<(f64, f64)> {
    let known = board.epochs.iter().filter_map(|record| {
        let value = value(record).filter(|value| value.is_finite())?;
        Some(((record.epoch + 1) as f64, value))
    });
    known.collect()
}

/// A screen without room for curves.
fn words(board: &Board) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(output::shown(&board.title).into_owned())];
    lines.extend(facts(board).into_iter().map(Line::from));
    if let Some(record) = board.epochs.last() {
        let dice = number(record.ema_pseudo_dice);
        lines.push(Line::from(format!("loss {:.4}  average Dice {dice}", record.train_loss)));
    }
    lines.push(last_line(board));
    lines
}

/// Where it stands, in two lines.
fn facts(board: &Board) -> [String; 2] {
    let epoch = match board.num_epochs {
        0 => "waiting for the first line of the log".to_owned(),
        epochs => {
            let running = (board.done() + 1).min(epochs);
            format!("epoch {running} of {epochs}, {}", board.doing_text())
        }
    };
    let mut facts = Vec::new();
    if let Some(secs) = board.epoch_secs() {
        facts.push(format!("{} per epoch", seconds(secs)));
    }
    if let Some(secs) = board.left_secs() {
        facts.push(format!("{} left", output::duration(secs)));
    }
    if let Some((held, most)) = board.memory.host {
        facts.push(format!("memory {}, at most {}", output::bytes(held), output::bytes(most)));
    }
    if let Some(reserved) = board.memory.device {
        facts.push(format!("GPU {}", output::bytes(reserved)));
    }
    [epoch, facts.join(" · ")]
}

fn seconds(secs: f64) -> String {
    if secs < 10.0 { format!("{secs:.1} s") } else { output::duration(secs) }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

fn draw_head(frame: &mut Frame<'_>, board: &Board, area: Rect) {
    let title = format!(" {} ", output::shown(&board.title));
    let block = Block::bordered().title(title).title_style(Modifier::BOLD);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [first, second, third] = Layout::vertical([Constraint::Length(1); 3]).areas(inner);
    let [epoch, numbers] = facts(board);
    let newest = match (&board.step, board.epochs.last()) {
        (Some(step), _) => format!(" · loss of the last batch {:.4}", step.loss),
        (None, Some(record)) => format!(" · loss {:.4}", record.train_loss),
        (None, None) => String::new(),
    };
    frame.render_widget(Paragraph::new(format!(" {epoch}{newest}")), first);
    let share = board.share();
    let gauge = LineGauge::default()
        .ratio(share)
        .label(format!(" {:>5.1} %", 100.0 * share))
        .filled_symbol("━")
        .unfilled_symbol("─")
        .filled_style(Color::Green)
        .unfilled_style(FAINT);
    frame.render_widget(gauge, second);
    frame.render_widget(Paragraph::new(format!(" {numbers}")), third);
}

/// Curves over the epochs; without bounds, between the least and the largest of their values.
fn curves(
    frame: &mut Frame<'_>,
    area: Rect,
    (board, title): (&Board, &str),
    curves: &[Curve<'_>],
    bounds: Option<[f64; 2]>,
) {
    let last = board.epochs.last().map_or(2.0, |record| (record.epoch + 1) as f64).max(2.0);
    let values = curves.iter().flat_map(|(_, _, points)| points.iter().map(|(_, value)| *value));
    let [low, high] = bounds.unwrap_or_else(|| range(values));
    let text = |value: f64| match high - low {
        wide if wide < 0.02 => format!("{value:.2e}"),
        _ => format!("{value:.2}"),
    };
    let datasets = curves.iter().map(|(name, colour, points)| {
        // A single epoch is no line.
        let kind = if points.len() < 2 { GraphType::Scatter } else { GraphType::Line };
        let curve = Dataset::default().marker(Marker::Braille).graph_type(kind).data(points);
        let curve = curve.style(*colour);
        if name.is_empty() { curve } else { curve.name(*name) }
    });
    let x = Axis::default().bounds([1.0, last]).style(FAINT);
    let y = Axis::default().bounds([low, high]).style(FAINT);
    let chart = Chart::new(datasets.collect())
        .block(Block::bordered().title(title.to_owned()))
        .x_axis(x.labels([Line::from("1"), Line::from(format!("epoch {last:.0}"))]))
        .y_axis(y.labels([text(low), text((low + high) / 2.0), text(high)]))
        .legend_position(Some(LegendPosition::TopRight))
        .hidden_legend_constraints((Constraint::Ratio(3, 4), Constraint::Ratio(1, 2)));
    frame.render_widget(chart, area);
}

/// Bounds that hold all values, and are not equal.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    match (low.is_finite(), high > low) {
        (false, _) => [0.0, 1.0],
        (true, true) => [low, high],
        (true, false) => {
            let around = (low.abs() * 0.1).max(1e-6);
            [low - around, high + around]
        }
    }
}

/// The pseudo-Dice of each class in the last epoch: all, or those that are lowest.
fn draw_classes(frame: &mut Frame<'_>, board: &Board, area: Rect) {
    let scores = board.epochs.last().map_or(&[][..], |record| &record.dice_per_class);
    let room = usize::from(area.height.saturating_sub(2));
    let mut shown: Vec<usize> = (0..scores.len()).collect();
    let title = if scores.len() > room {
        // A class that was never seen has no score, and comes last.
        let score = |index: &usize| scores[*index].unwrap_or(f64::INFINITY);
        shown.sort_by(|a, b| score(a).total_cmp(&score(b)));
        shown.truncate(room);
        shown.sort_unstable();
        format!(" Classes: the {} lowest of {} ", shown.len(), scores.len())
    } else {
        " Classes ".to_owned()
    };
    let names = shown.iter().map(|index| output::shown(&board.class(*index)).into_owned());
    let names: Vec<String> = names.collect();
    let width = usize::from(area.width.saturating_sub(2));
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let widest = widest.min(width.saturating_sub(14));
    let bar = width.saturating_sub(widest + 9);
    let line = |(name, index): (&String, &usize)| {
        let name: String = name.chars().take(widest).collect();
        let score = scores[*index];
        let filled = (score.unwrap_or(0.0).clamp(0.0, 1.0) * bar as f64).round() as usize;
        Line::from(vec![
            Span::raw(format!(" {name:<widest$} ")),
            Span::styled("━".repeat(filled), Color::Green),
            Span::styled("─".repeat(bar - filled), FAINT),
            Span::raw(score.map_or_else(|| "      –".to_owned(), |score| format!(" {score:.4}"))),
        ])
    };
    let lines: Vec<Line<'_>> = names.iter().zip(&shown).map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

fn last_line(board: &Board) -> Line<'static> {
    match &board.message {
        Some(message) => Line::styled(output::shown(message).into_owned(), Color::Yellow),
        None => Line::styled(format!(" {}", board.keys), FAINT),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::super::{Doing, Memory};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The screen as text.
    fn screen(board: &Board, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        terminal.backend().to_string()
    }

    fn board(epochs: usize) -> Board {
        let classes = ["liver", "spleen", "a\u{1b}[2Jb"].map(str::to_owned).to_vec();
        let epochs = (0..epochs).map(record).collect();
        let mut board = Board::new("Dataset501_Liver, fold 0".to_owned(), classes, epochs);
        (board.num_epochs, board.num_iterations, board.iteration) = (80, 250, 125);
        board.doing = Doing::Training;
        board.memory = Memory { host: Some((3_200_000_000, 4 << 30)), device: Some(9 << 30) };
        "q closes this screen".clone_into(&mut board.keys);
        board
    }

    #[test]
    fn everything_that_is_known_is_on_it() {
        let text = screen(&board(40), (100, 30));
        for words in [
            "Dataset501_Liver, fold 0",
            "epoch 41 of 80, iteration 125 of 250",
            "20 s per epoch",
            "13 min left",
            "memory 3.2 GB, at most 4.3 GB",
            "GPU 9.7 GB",
            "50.6 %",
            "Loss",
            "Pseudo-Dice",
            "Learning rate: 5.",
            "moving average",
            "liver",
            "0.9506",
            "spleen",
            "0.9750",
            "q closes this screen",
        ] {
            assert!(text.contains(words), "{words} is not on it:\n{text}");
        }
        let dots = text.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
        assert!(dots > 100, "{dots} cells of curves:\n{text}");
        assert!(text.contains("a\\u001b[2Jb") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn any_size_and_any_moment() {
        for epochs in [0, 1, 2, 40] {
            for width in [1, 2, 20, 56, 57, 80, 300] {
                for height in [1, 2, 15, 16, 17, 24, 100] {
                    let text = screen(&board(epochs), (width, height));
                    assert_eq!(text.lines().count(), usize::from(height));
                }
            }
        }
        let text = screen(&Board::new("run".to_owned(), Vec::new(), Vec::new()), (80, 24));
        assert!(text.contains("waiting for the first line of the log"), "{text}");
    }

    #[test]
    fn of_many_classes_the_lowest_are_shown() {
        let mut board = board(1);
        board.epochs[0].dice_per_class = (0..100).map(|index| Some(index as f64 / 100.0)).collect();
        board.epochs[0].dice_per_class[1] = None;
        let text = screen(&board, (100, 30));
        assert!(text.contains("lowest of 100"), "{text}");
        assert!(text.contains("class 4") && !text.contains("class 99"), "{text}");
    }
}
