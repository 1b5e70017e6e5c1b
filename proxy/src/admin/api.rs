//! What the admin API can do.

use std::iter;
use std::time::{Duration, Instant};

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::message::{Reply, Request};
use super::stats;
use crate::adaptive;
use crate::backend::Backend;
use crate::balance;
use crate::config::raw::{RawBackend, RawConfig};
use crate::control::{ApplyError, ConfigGuard, Control, Staged};
use crate::names;

/// What stands for a secret in `GET /api/v1/config`.
const REDACTED: &str = "[redacted]";

/// A backend by its names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    upstream: String,
    backend_id: String,
}

/// A backend with its upstream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    upstream: String,
    backend: RawBackend,
}

/// A report on the host of a backend.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    upstream: String,
    backend_id: String,
    performance: Performance,
}

/// The values that matter here; the others of a report are let pass.
#[derive(Debug, Deserialize)]
struct Performance {
    /// Percent.
    cpu_usage: f64,
    /// Percent.
    memory_usage: f64,
    /// Runnable tasks.
    load_avg_1: f64,
    /// By which the load is a share.
    #[serde(default = "one_core")]
    cores: f64,
}

fn one_core() -> f64 {
    1.0
}

/// Answers one request that was admitted; an `Err` is an answer too.
pub(super) async fn handle(control: &Control, request: &Request) -> Result<Reply, Reply> {
    check_type(request)?;
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/api/v1/config") => Ok(Reply::ok(redacted(&control.raw()))),
        ("PUT", "/api/v1/config") => put_config(control, request).await,
        ("POST", "/api/v1/config/reload-ssl") => reload_ssl(control).await,
        ("GET", "/api/v1/backends") => backends(control, request),
        ("POST", "/api/v1/backends/add") => add(control, request, &request.json()?).await,
        ("DELETE", "/api/v1/backends/remove") => remove(control, request, &named(request)?).await,
        ("PUT", "/api/v1/backends/update") => update(control, request, &request.json()?).await,
        ("POST", "/api/v1/backends/disconnect") => connect(control, &request.json()?, true),
        ("POST", "/api/v1/backends/reconnect") => connect(control, &request.json()?, false),
        ("GET", "/api/v1/stats/server") => stats::server(control).await,
        ("GET", "/api/v1/stats/backend") => stats::backend(control, request).await,
        ("POST", "/api/v1/report") => report(control, &request.json()?),
        (_, path) if PATHS.contains(&path) => Err(Reply::error(
            405,
            format!("{} is not allowed for this path", request.method),
        )),
        _ => Err(Reply::error(
            404,
            format!("unknown path; known are {}", PATHS.join(", ")),
        )),
    }
}

const PATHS: [&str; 11] = [
    "/api/v1/config",
    "/api/v1/config/reload-ssl",
    "/api/v1/backends",
    "/api/v1/backends/add",
    "/api/v1/backends/remove",
    "/api/v1/backends/update",
    "/api/v1/backends/disconnect",
    "/api/v1/backends/reconnect",
    "/api/v1/stats/server",
    "/api/v1/stats/backend",
    "/api/v1/report",
];

fn is_reading(request: &Request) -> bool {
    request.method == Method::GET
}

/// Reading is open on loopback; everything else needs the token. Checked before the
/// body is read, so that a stranger's body costs nothing.
pub(super) fn admit(control: &Control, is_loopback: bool, request: &Request) -> Result<(), Reply> {
    let given = request.bearer.as_deref().unwrap_or_default();
    if (is_reading(request) && is_loopback) || control.is_token(given) {
        return Ok(());
    }
    Err(Reply::error(
        401,
        "send the token as \"Authorization: Bearer TOKEN\"",
    ))
}

/// A browser cannot send this type to another site without being asked.
fn check_type(request: &Request) -> Result<(), Reply> {
    let typed = matches!(
        request.content_type.as_str(),
        "application/json" | "application/yaml"
    );
    if is_reading(request) || request.body.is_empty() || typed {
        return Ok(());
    }
    Err(Reply::error(
        415,
        "send the body as Content-Type: application/json",
    ))
}

fn redacted(raw: &RawConfig) -> Value {
    let mut raw = raw.clone();
    if raw.admin.token.is_some() {
        raw.admin.token = Some(REDACTED.to_owned());
    }
    serde_json::to_value(raw).unwrap_or_default()
}

async fn put_config(control: &Control, request: &Request) -> Result<Reply, Reply> {
    let text = std::str::from_utf8(&request.body)
        .map_err(|_| Reply::error(422, "the configuration is not UTF-8"))?;
    let config =
        crate::config::Config::parse(text).map_err(|error| Reply::error(422, error.to_string()))?;
    control.prefetch_names(names::hosts(&config)).await;
    let guard = control.lock_config().await;
    let mut raw = config.raw;
    let redacted = raw.admin.token.as_deref() == Some(REDACTED);
    if redacted {
        raw.admin.token = control.raw().admin.token;
    }
    let text = (!redacted).then_some(text);
    let persisted = apply(control, &guard, request, raw, text).await?;
    Ok(Reply::ok(
        json!({"status": "applied", "persisted": persisted, "warnings": control.warnings()}),
    ))
}

/// Has the workers use a configuration, and with `?persist=true` the next start
/// too: then it is written to the file, as `text` where that says it all. Says
/// whether it was.
async fn apply(
    control: &Control,
    guard: &ConfigGuard<'_>,
    request: &Request,
    raw: RawConfig,
    text: Option<&str>,
) -> Result<bool, Reply> {
    let persist = match request.parameter("persist") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Reply::error(400, "persist: write true or false")),
    };
    let staged = persist.then(|| stage(control, &raw, text)).transpose()?;
    guard.apply(raw).await?;
    if let Some(staged) = staged {
        staged.commit().map_err(|error| {
            let detail = format!("the configuration is in use, but not in the file: {error}");
            Reply::error(500, detail)
        })?;
    }
    Ok(persist)
}

/// Writes a configuration as `text` where that says it, else as JSON, which is YAML.
fn stage(control: &Control, raw: &RawConfig, text: Option<&str>) -> Result<Staged, Reply> {
    let json;
    let text = match text {
        Some(text) => text,
        None => {
            json = serde_json::to_string_pretty(raw).unwrap_or_default() + "\n";
            &json
        }
    };
    control.stage(text).map_err(|error| {
        let detail = format!(
            "nothing was changed, because the configuration file cannot be written: {error}; \
             let the proxy write its directory (ReadWritePaths= in its unit), or leave out persist=true"
        );
        Reply::error(409, detail)
    })
}

impl From<ApplyError> for Reply {
    fn from(error: ApplyError) -> Self {
        let status = match error {
            ApplyError::Listen(_) | ApplyError::Stopping => 409,
            ApplyError::Config(_) | ApplyError::Build(_) | ApplyError::Token(_) => 422,
        };
        Self::error(status, error.to_string())
    }
}

async fn reload_ssl(control: &Control) -> Result<Reply, Reply> {
    let guard = control.lock_config().await;
    let raw = control.raw();
    if !raw.ssl.enabled {
        return Err(Reply::error(409, "ssl is not enabled"));
    }
    guard.apply(raw).await?;
    match &control.table().certificate_error {
        None => Ok(Reply::ok(json!({"status": "reloaded"}))),
        Some(error) => Err(Reply::error(
            422,
            format!("cannot load the certificate, keeping the previous one: {error}"),
        )),
    }
}

fn backends(control: &Control, request: &Request) -> Result<Reply, Reply> {
    let table = control.table();
    let mut upstreams = serde_json::Map::new();
    for (upstream, backends) in table.config.upstreams.iter().zip(&table.upstreams) {
        let list: Vec<Value> = backends
            .iter()
            .map(|backend| describe(backend, upstream.slow_start))
            .collect();
        upstreams.insert(upstream.name.clone(), Value::Array(list));
    }
    match request.parameter("upstream") {
        None => Ok(Reply::ok(json!({"upstreams": upstreams}))),
        Some(name) => match upstreams.remove(name) {
            Some(list) => Ok(Reply::ok(json!({"upstream": name, "backends": list}))),
            None => Err(Reply::error(404, format!("unknown upstream {name}"))),
        },
    }
}

fn describe(backend: &Backend, slow_start: Duration) -> Value {
    let mut value = serde_json::to_value(&backend.config).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("healthy".to_owned(), json!(backend.is_healthy()));
        map.insert("ejected".to_owned(), json!(backend.is_ejected()));
        map.insert("disconnected".to_owned(), json!(backend.is_disconnected()));
        map.insert("connections".to_owned(), json!(backend.in_flight()));
        map.insert("utilisation".to_owned(), json!(backend.utilisation()));
        map.insert(
            "cost".to_owned(),
            json!(adaptive::explain(backend, slow_start, Instant::now())),
        );
    }
    value
}

/// Names in the query or in the body: not every client sends a body with DELETE.
fn named(request: &Request) -> Result<Named, Reply> {
    if !request.body.is_empty() {
        return request.json();
    }
    let (upstream, backend_id) = (
        request.required("upstream")?,
        request.required("backend_id")?,
    );
    Ok(Named {
        upstream: upstream.to_owned(),
        backend_id: backend_id.to_owned(),
    })
}

fn list_of<'a>(raw: &'a mut RawConfig, upstream: &str) -> Result<&'a mut Vec<RawBackend>, Reply> {
    let missing = || Reply::error(404, format!("unknown upstream {upstream}"));
    raw.backends.get_mut(upstream).ok_or_else(missing)
}

fn position(list: &[RawBackend], upstream: &str, id: &str) -> Result<usize, Reply> {
    list.iter()
        .position(|backend| backend.id == id)
        .ok_or_else(|| Reply::error(404, format!("unknown backend {id} in upstream {upstream}")))
}

async fn add(control: &Control, request: &Request, placed: &Placed) -> Result<Reply, Reply> {
    control
        .prefetch_names(names::names_among(iter::once(placed.backend.host.as_str())))
        .await;
    let guard = control.lock_config().await;
    let mut raw = control.raw();
    let list = list_of(&mut raw, &placed.upstream)?;
    if list.iter().any(|backend| backend.id == placed.backend.id) {
        return Err(Reply::error(
            409,
            format!("a backend with the id {} exists already", placed.backend.id),
        ));
    }
    list.push(placed.backend.clone());
    let persisted = apply(control, &guard, request, raw, None).await?;
    Ok(Reply::ok(
        json!({"status": "added", "persisted": persisted}),
    ))
}

async fn remove(control: &Control, request: &Request, named: &Named) -> Result<Reply, Reply> {
    let guard = control.lock_config().await;
    let mut raw = control.raw();
    let list = list_of(&mut raw, &named.upstream)?;
    let at = position(list, &named.upstream, &named.backend_id)?;
    list.remove(at);
    let persisted = apply(control, &guard, request, raw, None).await?;
    Ok(Reply::ok(
        json!({"status": "removed", "persisted": persisted}),
    ))
}

async fn update(control: &Control, request: &Request, placed: &Placed) -> Result<Reply, Reply> {
    control
        .prefetch_names(names::names_among(iter::once(placed.backend.host.as_str())))
        .await;
    let guard = control.lock_config().await;
    let mut raw = control.raw();
    let list = list_of(&mut raw, &placed.upstream)?;
    let at = position(list, &placed.upstream, &placed.backend.id)?;
    list[at] = placed.backend.clone();
    let persisted = apply(control, &guard, request, raw, None).await?;
    Ok(Reply::ok(
        json!({"status": "updated", "persisted": persisted}),
    ))
}

fn connect(control: &Control, named: &Named, disconnect: bool) -> Result<Reply, Reply> {
    let backend = control
        .find(&named.upstream, &named.backend_id)
        .ok_or_else(|| {
            let detail = format!(
                "unknown backend {} in upstream {}",
                named.backend_id, named.upstream
            );
            Reply::error(404, detail)
        })?;
    backend.set_disconnected(disconnect);
    let status = if disconnect { "draining" } else { "connected" };
    Ok(Reply::ok(
        json!({"status": status, "connections": backend.in_flight()}),
    ))
}

fn report(control: &Control, report: &Report) -> Result<Reply, Reply> {
    let backend = control
        .find(&report.upstream, &report.backend_id)
        .ok_or_else(|| {
            let detail = format!(
                "unknown backend {} in upstream {}",
                report.backend_id, report.upstream
            );
            Reply::error(404, detail)
        })?;
    let given = &report.performance;
    let values = [
        given.cpu_usage,
        given.memory_usage,
        given.load_avg_1,
        given.cores,
    ];
    if values
        .iter()
        .any(|value| !value.is_finite() || *value < 0.0)
        || given.cores < 1.0
    {
        return Err(Reply::error(
            422,
            "performance: percentages and loads are not negative, cores is 1 or more",
        ));
    }
    let utilisation = balance::utilisation(
        given.cpu_usage / 100.0,
        given.memory_usage / 100.0,
        given.load_avg_1 / given.cores,
    );
    backend.report(utilisation);
    Ok(Reply {
        status: 202,
        body: json!({"status": "accepted", "utilisation": utilisation}),
    })
}
