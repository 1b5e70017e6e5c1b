//! Answers from engines that speak the Prometheus HTTP API, in place of the
//! store: what remote write sent there is read back by `PromQL`.
//!
//! Only sums are asked for that an engine can give exactly: the last total in
//! a step, never a rate, which each engine estimates in its own way.  Deltas,
//! rates and quantiles are then made here, by the code that makes them from
//! the store.  Every answer has a bound in time and size.

mod answer;
mod endpoint_names;
mod hosts;
mod promql;
mod reports;
mod series;

use std::{
    io::Read,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use budget::{Budget, Exhausted, Held, Use};
use daemon::clock::unix_ns;
use tokio::{sync::Semaphore, task::JoinSet};

use self::answer::{Answer, BadAnswer, Series};
use crate::partial::Partial;

/// How long an engine may take for one question.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// It is read so much at a time, and what it becomes is so many times as much: each
/// series has labels of its own.
const PART_BYTES: u64 = 256 << 10;
const GROWTH: u64 = 4;
/// How long room for it is waited for, and how often it is looked for: others have
/// theirs for a moment.
const ROOM_MAX: Duration = Duration::from_secs(5);
const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// Questions that are on their way at once; others wait.
const QUESTIONS_MAX: usize = 16;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// None of the engines answered.
    #[error("the query backend {url} did not answer: {why}")]
    NoAnswer { url: String, why: String },
    #[error("the collector is stopping")]
    Stopping,
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error("too many {0}")]
    TooMuch(&'static str),
}

/// The engines that are asked; their answers are joined.
#[derive(Clone, Debug)]
pub struct Engine {
    budget: Budget,
    urls: Arc<[String]>,
    agent: ureq::Agent,
    places: Arc<Semaphore>,
}

/// A question, with the parameters of the Prometheus API.
#[derive(Clone, Debug)]
struct Question {
    path: &'static str,
    form: Vec<(&'static str, String)>,
}

impl Question {
    /// At one time, in unix seconds.
    fn at(expression: String, time_s: f64) -> Self {
        Self {
            path: "/api/v1/query",
            form: vec![("query", expression), ("time", format!("{time_s:.3}"))],
        }
    }

    /// At every step's end.
    fn range(expression: String, start_s: u64, end_s: u64, step_s: u64) -> Self {
        Self {
            path: "/api/v1/query_range",
            form: vec![
                ("query", expression),
                ("start", start_s.to_string()),
                ("end", end_s.to_string()),
                ("step", step_s.to_string()),
                // VictoriaMetrics would move the ends of the range.
                ("nocache", "1".to_owned()),
            ],
        }
    }
}

impl Engine {
    /// `None` without a URL.
    pub fn new(urls: Vec<String>, budget: &Budget) -> Option<Self> {
        (!urls.is_empty()).then(|| Self {
            budget: budget.clone(),
            urls: urls.into(),
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(TIMEOUT))
                .max_redirects(0)
                .user_agent(concat!("speedmimi-collector/", env!("CARGO_PKG_VERSION")))
                .build()
                .new_agent(),
            places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        })
    }

    /// Whether one of the engines answers.
    pub async fn ready(&self) -> Result<(), EngineError> {
        let now_s = unix_ns() as f64 / 1e9;
        self.ask([Question::at("vector(1)".to_owned(), now_s)])
            .await
            .map(drop)
    }

    /// Asks every engine all questions; an answer each question.  An engine
    /// that fails makes the answer partial, unless all do.
    async fn ask<const N: usize>(
        &self,
        questions: [Question; N],
    ) -> Result<Partial<[Vec<Series>; N]>, EngineError> {
        let mut tasks = JoinSet::new();
        for url in self.urls.iter() {
            for (n, question) in questions.iter().enumerate() {
                let (engine, url, question) = (self.clone(), url.clone(), question.clone());
                tasks.spawn(async move { (n, engine.ask_one(url, question).await) });
            }
        }
        let mut all = Partial {
            value: [const { Vec::new() }; N],
            partial: Vec::new(),
        };
        let mut answered = [false; N];
        let mut last_error = None;
        while let Some(done) = tasks.join_next().await {
            let (n, answer) = done.map_err(|_| EngineError::Stopping)?;
            match answer {
                Ok(answer) => {
                    answered[n] = true;
                    all.value[n].extend(answer.series);
                    all.partial.extend(answer.partial);
                }
                Err(error) => {
                    all.partial.push(error.to_string());
                    last_error = Some(error);
                }
            }
        }
        if let (Some(error), true) = (last_error, answered.contains(&false)) {
            return Err(error);
        }
        all.partial.sort();
        all.partial.dedup();
        Ok(all)
    }

    async fn ask_one(&self, url: String, question: Question) -> Result<Answer, EngineError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let _place = place.map_err(|_| EngineError::Stopping)?;
        let agent = self.agent.clone();
        let asked: Vec<&str> = question.form.iter().map(|(_, text)| &**text).collect();
        let room = self.budget.open(Use::Answers, &asked.join(" ").into());
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded: each holds one of QUESTIONS_MAX places"
        )]
        let asked = tokio::task::spawn_blocking(move || {
            let target = format!("{}{}", url.as_str().trim_end_matches('/'), question.path);
            post(&agent, &target, question.form, room).map_err(|failure| match failure {
                Failure::Exhausted(exhausted) => exhausted.into(),
                Failure::NoAnswer(why) => EngineError::NoAnswer {
                    url: url.clone(),
                    why,
                },
            })
        });
        asked.await.map_err(|_| EngineError::Stopping)?
    }
}

/// Why a question has no answer.
enum Failure {
    NoAnswer(String),
    Exhausted(Exhausted),
}

impl Failure {
    fn of(error: &dyn std::fmt::Display) -> Self {
        Self::NoAnswer(error.to_string())
    }
}

/// Holds so many bytes, once there is room.
fn resize(room: &mut Held, bytes: u64) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        match room.resize(bytes) {
            Err(_) if started.elapsed() < ROOM_MAX => thread::sleep(ROOM_PAUSE),
            done => return done.map_err(Failure::Exhausted),
        }
    }
}

/// Reads an answer as far as there is room for what it becomes.
fn read(mut from: impl Read, room: &mut Held) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let mut part = from.by_ref().take(PART_BYTES);
    while part
        .read_to_end(&mut body)
        .map_err(|error| Failure::of(&error))?
        > 0
    {
        let bytes = body.len() as u64;
        if bytes > ANSWER_BYTES_MAX {
            let most = ANSWER_BYTES_MAX >> 20;
            let words = format!("its response is larger than {most} MiB: select a host");
            return Err(Failure::NoAnswer(words));
        }
        resize(room, bytes * GROWTH)?;
        part.set_limit(PART_BYTES);
    }
    Ok(body)
}

fn post(
    agent: &ureq::Agent,
    url: &str,
    form: Vec<(&'static str, String)>,
    mut room: Held,
) -> Result<Answer, Failure> {
    let mut response = agent
        .post(url)
        .send_form(form)
        .map_err(|error| Failure::of(&error))?;
    let status = response.status().as_u16();
    let reader = response.body_mut().with_config().limit(u64::MAX).reader();
    let body = read(reader, &mut room)?;
    answer::parse(&body).map_err(|error| match error {
        BadAnswer::NotOfTheApi(_) if status != 200 => {
            Failure::NoAnswer(format!("its status was {status}"))
        }
        error => Failure::of(&error),
    })
}
