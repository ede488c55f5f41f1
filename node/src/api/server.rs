//! The serving side of the local API. Translates; decides nothing.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use swarmkv_protocol::id::{DeviceId, Version};
use swarmkv_protocol::io::RevokeRefused;

use super::socket::Listening;
use super::wire::{
    ApiError, ChangedAnswer, ChangedRequest, ConfirmRequest, ErrorKind, GetAnswer, GetRequest,
    InviteAnswer, InviteRequest, KnockInfo, ListAnswer, ListRequest, MemberInfo, PeerInfo,
    RevokeAnswer, RevokeRequest, Status, WriteAnswer, WriteRequest,
};
use crate::error::{InviteError, ReadError, RevokeError, WriteError};
use crate::handle::Handle;

/// Largest request: a transaction of 8 MiB, every byte of it a JSON escape, and what is around it.
const MAX_BODY: usize = 56 << 20;

/// Serves until the task is aborted.
pub(crate) async fn serve(mut socket: Listening, handle: Handle) {
    let Some(listener) = socket.listener.take() else {
        return;
    };
    let routes = Router::new()
        .route("/v1/write", post(write))
        .route("/v1/get", post(get_key))
        .route("/v1/list", post(list))
        .route("/v1/invite", post(invite))
        .route("/v1/members", get(members))
        .route("/v1/knocks", get(knocks))
        .route("/v1/confirm", post(confirm))
        .route("/v1/revoke", post(revoke))
        .route("/v1/changed", post(changed))
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/scrub", post(scrub))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(handle);
    let _ = axum::serve(listener, routes).await;
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotAllowed => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Condition => StatusCode::PRECONDITION_FAILED,
            ErrorKind::CatchingUp | ErrorKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

type Answer<T> = Result<Json<T>, ApiError>;
type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, ApiError> {
    match body {
        Ok(Json(value)) => Ok(value),
        Err(e) => Err(ApiError::new(ErrorKind::Invalid, e.body_text())),
    }
}

async fn write(State(handle): State<Handle>, request: Body<WriteRequest>) -> Answer<WriteAnswer> {
    let versions = handle.write(body(request)?.ops).await?;
    Ok(Json(WriteAnswer { versions: versions.iter().map(Version::to_string).collect() }))
}

async fn get_key(State(handle): State<Handle>, request: Body<GetRequest>) -> Answer<GetAnswer> {
    let request = body(request)?;
    let limit = Duration::from_millis(request.timeout_ms);
    let at_least = match &request.at_least {
        Some(text) => Some(
            text.parse::<Version>()
                .map_err(|e| ApiError::new(ErrorKind::Invalid, e.to_string()))?,
        ),
        None => None,
    };
    let (value, siblings) = handle.look(&request.key.0, at_least.as_ref(), limit).await?;
    Ok(Json(GetAnswer { value: value.map(super::wire::Data), siblings }))
}

async fn list(State(handle): State<Handle>, request: Body<ListRequest>) -> Answer<ListAnswer> {
    let request = body(request)?;
    handle.caught_up(Duration::from_millis(request.timeout_ms)).await?;
    let page = tokio::task::spawn_blocking(move || handle.list(&request));
    let page = page.await.map_err(|e| ApiError::new(ErrorKind::Failed, e.to_string()))?;
    Ok(Json(page?))
}

async fn changed(
    State(handle): State<Handle>,
    request: Body<ChangedRequest>,
) -> Answer<ChangedAnswer> {
    let request = body(request)?;
    let limit = Duration::from_millis(request.timeout_ms);
    let state = handle.other_than(&request.state, limit).await;
    state.map(|state| Json(ChangedAnswer { state })).ok_or_else(stopped)
}

async fn invite(
    State(handle): State<Handle>,
    request: Body<InviteRequest>,
) -> Answer<InviteAnswer> {
    Ok(Json(handle.invite(body(request)?).await?))
}

async fn members(State(handle): State<Handle>) -> Answer<Vec<MemberInfo>> {
    handle.members().await.map(Json).ok_or_else(stopped)
}

async fn knocks(State(handle): State<Handle>) -> Answer<Vec<KnockInfo>> {
    handle.knocks().await.map(Json).ok_or_else(stopped)
}

async fn confirm(State(handle): State<Handle>, request: Body<ConfirmRequest>) -> Answer<()> {
    let request = body(request)?;
    let device = request.device_id.parse::<DeviceId>();
    let device = device.map_err(|e| ApiError::new(ErrorKind::Invalid, e.to_string()))?;
    handle.confirm(device, request.same).await.map(Json).ok_or_else(stopped)
}

async fn revoke(
    State(handle): State<Handle>,
    request: Body<RevokeRequest>,
) -> Answer<RevokeAnswer> {
    Ok(Json(handle.revoke(body(request)?).await?))
}

fn stopped() -> ApiError {
    ApiError::new(ErrorKind::Failed, "the peer has stopped")
        .hint("see its last messages, then start it again with: swarmkv up")
}

async fn status(State(handle): State<Handle>) -> Answer<Status> {
    handle.status().await.map(Json).ok_or_else(stopped)
}

async fn scrub(State(handle): State<Handle>) -> Answer<()> {
    handle.scrub().await.map(Json).ok_or_else(stopped)
}

async fn peers(State(handle): State<Handle>) -> Answer<Vec<PeerInfo>> {
    handle.peers().await.map(Json).ok_or_else(stopped)
}

const SEE_PROGRESS: &str = "see how far it is with: swarmkv status";

impl From<WriteError> for ApiError {
    fn from(e: WriteError) -> Self {
        let text = e.to_string();
        match e {
            WriteError::NotAllowed(_) => Self::new(ErrorKind::NotAllowed, text),
            WriteError::Invalid(_) => Self::new(ErrorKind::Invalid, text),
            WriteError::Condition(there) => {
                let there: Vec<String> = there.iter().map(Version::to_string).collect();
                let hint = if there.is_empty() {
                    "nothing is there".to_owned()
                } else {
                    format!("there is {} (see: swarmkv get --meta KEY)", there.join(" "))
                };
                Self::new(ErrorKind::Condition, text).hint(hint)
            }
            WriteError::CatchingUp => Self::new(ErrorKind::CatchingUp, text).hint(SEE_PROGRESS),
            WriteError::Busy => Self::new(ErrorKind::Busy, text).hint("try again in a moment"),
            WriteError::Full => Self::new(ErrorKind::Full, text).hint(
                "make room, then try again: the peer goes on by itself, and reads go on meanwhile",
            ),
            WriteError::Stopped => stopped(),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(e: ReadError) -> Self {
        let text = e.to_string();
        match e {
            ReadError::CatchingUp => Self::new(
                ErrorKind::CatchingUp,
                "this device is still catching up: the delete of what it would show may be missing",
            )
            .hint(SEE_PROGRESS),
            ReadError::NotYet(_) => Self::new(ErrorKind::Timeout, text)
                .hint("wait longer with --timeout, or see who is connected with: swarmkv peers"),
            ReadError::Damaged => Self::new(ErrorKind::CatchingUp, text).hint(
                "try again in a moment; if nobody else has it, write or delete the key to go on",
            ),
            ReadError::NoSuchVersion => Self::new(ErrorKind::Invalid, text),
            ReadError::Store(_) => Self::new(ErrorKind::Failed, text),
            ReadError::Stopped => stopped(),
        }
    }
}

impl From<RevokeError> for ApiError {
    fn from(e: RevokeError) -> Self {
        const SEE: &str = "see who is a member with: swarmkv members";
        let text = e.to_string();
        match e {
            RevokeError::Refused(RevokeRefused::Unknown) | RevokeError::Unknown(_) => {
                Self::new(ErrorKind::NotFound, text).hint(SEE)
            }
            RevokeError::Refused(RevokeRefused::Already) => {
                Self::new(ErrorKind::Condition, text).hint(SEE)
            }
            RevokeError::Refused(_) => Self::new(ErrorKind::NotAllowed, text).hint(SEE),
            RevokeError::Ambiguous { ids, .. } => {
                let ids: Vec<String> = ids.iter().map(|id| id.chars().take(10).collect()).collect();
                let hint = format!("give the start of an id: {}", ids.join(", "));
                Self::new(ErrorKind::Invalid, text).hint(hint)
            }
            RevokeError::NotSafe => Self::new(ErrorKind::Condition, text)
                .hint("connect to one first (swarmkv peers), or give it up with: --force"),
            RevokeError::Stopped => stopped(),
        }
    }
}

impl From<InviteError> for ApiError {
    fn from(e: InviteError) -> Self {
        let text = e.to_string();
        match e {
            InviteError::NotAllowed => Self::new(ErrorKind::NotAllowed, text),
            InviteError::TooMany => Self::new(ErrorKind::Busy, text),
            InviteError::Invalid => Self::new(ErrorKind::Invalid, text),
            InviteError::Stopped => stopped(),
        }
    }
}
