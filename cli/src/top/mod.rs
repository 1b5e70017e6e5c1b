//! `speedmimi top`: the fleet, live, on a terminal.

mod feed;
mod model;
mod order;
mod table;
mod view;

use std::{
    io::{self, IsTerminal},
    sync::mpsc,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::{CliError, client::Client};
use model::{Key, Model};

/// How often it is drawn where nothing happens: ages go on.
const TICK: Duration = Duration::from_millis(250);

/// How many rows a page is.
const PAGE: isize = 10;

/// What the feeding thread says.
pub(crate) enum News {
    /// A report, and when it came to the collector.
    Report(Box<monitor_proto::json::Report>, Instant),
    /// What is wrong now; `None` where the collector does not tell.
    Problems(Option<problems::Problems>),
    Connected,
    Disconnected,
    /// No other try would help.
    Failed(CliError),
}

/// Draws until the user ends it.
pub(crate) fn run(client: Client) -> Result<(), CliError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    let url = client.url().to_owned();
    let news = feed::start(client)?;
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, &news, Model::new(url));
    ratatui::restore();
    result
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    news: &mpsc::Receiver<News>,
    mut model: Model,
) -> Result<(), CliError> {
    loop {
        while let Ok(news) = news.try_recv() {
            match news {
                News::Report(report, seen) => model.add(*report, seen),
                News::Problems(now) => model.problems = now,
                News::Connected => model.connected = true,
                News::Disconnected => model.connected = false,
                News::Failed(error) => return Err(error),
            }
        }
        terminal.draw(|frame| view::draw(frame, &model, Instant::now()))?;
        if event::poll(TICK)?
            && let Event::Key(pressed) = event::read()?
            && !key(pressed).is_none_or(|key| model.press(key))
        {
            return Ok(());
        }
    }
}

fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind != KeyEventKind::Press {
        return None;
    }
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    match pressed.code {
        KeyCode::Char('c') if control => Some(Key::Quit),
        KeyCode::Char(letter) => Some(Key::Letter(letter)),
        KeyCode::Esc => Some(Key::Quit),
        KeyCode::Tab | KeyCode::BackTab => Some(Key::OtherTable),
        KeyCode::Down => Some(Key::Move(1)),
        KeyCode::Up => Some(Key::Move(-1)),
        KeyCode::PageDown => Some(Key::Move(PAGE)),
        KeyCode::PageUp => Some(Key::Move(-PAGE)),
        KeyCode::Home => Some(Key::Move(isize::MIN)),
        KeyCode::End => Some(Key::Move(isize::MAX)),
        _ => None,
    }
}
