//! `top` on a terminal: endpoints and sockets, live.

mod model;
mod table;
mod view;

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use monitor_proto::v1;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use self::model::{Key, Model};

/// Why there is no live view.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Somebody else reads what is written.
    #[error("`top` needs a terminal; for one look give --once, for a report a line --output json")]
    NoTerminal,
    /// The terminal.
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
}

/// One look: what happened since the last one, and the live sockets.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The endpoints and the host.
    pub report: v1::Report,
    /// All live sockets.
    pub sockets: Vec<v1::SocketSummary>,
}

/// Shows a new look every interval until the user ends it.
///
/// # Errors
/// Where there is no terminal, or it cannot be used.
pub fn run(interval: Duration, look: impl FnMut() -> Look) -> Result<(), TopError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, interval, look);
    ratatui::restore();
    Ok(shown?)
}

fn show(
    terminal: &mut DefaultTerminal,
    interval: Duration,
    mut look: impl FnMut() -> Look,
) -> io::Result<()> {
    let mut model = Model::default();
    let mut due = Instant::now() + interval;
    loop {
        // A resize comes as an event and is drawn as anything else.
        terminal.draw(|frame| view::draw(frame, &mut model))?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            if let Event::Key(pressed) = event::read()?
                && !key(pressed).is_none_or(|key| model.press(key))
            {
                return Ok(());
            }
        } else {
            let look = look();
            if !model.is_paused() {
                model.update(look);
            }
            due = Instant::now() + interval;
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
        KeyCode::Tab | KeyCode::BackTab => Some(Key::OtherPage),
        KeyCode::Down => Some(Key::Move(1)),
        KeyCode::Up => Some(Key::Move(-1)),
        KeyCode::PageDown => Some(Key::Move(20)),
        KeyCode::PageUp => Some(Key::Move(-20)),
        KeyCode::Home => Some(Key::Move(isize::MIN)),
        KeyCode::End => Some(Key::Move(isize::MAX)),
        _ => None,
    }
}
