//! A client of the local API: finds the running peer of a data directory and asks it.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::socket;
use super::wire::{
    ApiError, ChangedAnswer, ChangedRequest, ConfirmRequest, GetAnswer, GetRequest, InviteAnswer,
    InviteRequest, KnockInfo, ListAnswer, ListRequest, MemberInfo, PeerInfo, RevokeAnswer,
    RevokeRequest, Status, WriteAnswer, WriteRequest,
};

/// Why a request could not be made or failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No peer runs on this data directory.
    #[error("no peer is running for this data directory")]
    NotRunning,
    /// It ran, but the connection broke before the answer came.
    #[error("the running peer did not answer: {0}")]
    Broken(String),
    /// The peer answered with an error.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// One connection to a running peer. Requests on it go one after another.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to the peer that runs on `data_dir`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if there is none.
    pub async fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let path = socket::find(data_dir).ok_or(ClientError::NotRunning)?;
        let stream = UnixStream::connect(path).await.map_err(|_| ClientError::NotRunning)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|_| ClientError::NotRunning)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Writes; when it returns, the operations are on the peer's disk.
    ///
    /// # Errors
    /// When the peer refuses, or cannot be reached.
    pub async fn write(&mut self, request: &WriteRequest) -> Result<WriteAnswer, ClientError> {
        self.post("/v1/write", request).await
    }

    /// Reads one key.
    ///
    /// # Errors
    /// When the peer refuses, or cannot be reached.
    pub async fn get(&mut self, request: &GetRequest) -> Result<GetAnswer, ClientError> {
        self.post("/v1/get", request).await
    }

    /// Waits until what the peer shows is something else.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn changed(
        &mut self,
        request: &ChangedRequest,
    ) -> Result<ChangedAnswer, ClientError> {
        self.post("/v1/changed", request).await
    }

    /// Reads one page of keys.
    ///
    /// # Errors
    /// When the peer refuses, or cannot be reached.
    pub async fn list(&mut self, request: &ListRequest) -> Result<ListAnswer, ClientError> {
        self.post("/v1/list", request).await
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// When the peer refuses, or cannot be reached.
    pub async fn invite(&mut self, request: &InviteRequest) -> Result<InviteAnswer, ClientError> {
        self.post("/v1/invite", request).await
    }

    /// Asks for everybody who is or was a member.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn members(&mut self) -> Result<Vec<MemberInfo>, ClientError> {
        self.call(Method::GET, "/v1/members", Vec::new()).await
    }

    /// Asks which devices wait for a person to compare their check words.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn knocks(&mut self) -> Result<Vec<KnockInfo>, ClientError> {
        self.call(Method::GET, "/v1/knocks", Vec::new()).await
    }

    /// Says whether a device's check words are the same on both sides.
    ///
    /// # Errors
    /// When the peer refuses, or cannot be reached.
    pub async fn confirm(&mut self, request: &ConfirmRequest) -> Result<(), ClientError> {
        self.post("/v1/confirm", request).await
    }

    /// Takes a device out, or says what that would do.
    ///
    /// # Errors
    /// When the peer refuses, or cannot be reached.
    pub async fn revoke(&mut self, request: &RevokeRequest) -> Result<RevokeAnswer, ClientError> {
        self.post("/v1/revoke", request).await
    }

    /// Asks how the peer is.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", Vec::new()).await
    }

    /// Asks for all members other than this device, connected or not.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn peers(&mut self) -> Result<Vec<PeerInfo>, ClientError> {
        self.call(Method::GET, "/v1/peers", Vec::new()).await
    }

    /// Has everything stored checked now; answers when that has begun.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn scrub(&mut self) -> Result<(), ClientError> {
        self.call(Method::POST, "/v1/scrub", Vec::new()).await
    }

    async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| ClientError::Broken(e.to_string()))?;
        self.call(Method::POST, path, body).await
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let broken = |e: &dyn std::fmt::Display| ClientError::Broken(e.to_string());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| broken(&e))?;
        self.sender.ready().await.map_err(|e| broken(&e))?;
        let answer = self.sender.send_request(request).await.map_err(|e| broken(&e))?;
        let ok = answer.status().is_success();
        let body = answer.into_body().collect().await.map_err(|e| broken(&e))?.to_bytes();
        if ok {
            serde_json::from_slice(&body).map_err(|e| broken(&e))
        } else {
            let error: ApiError = serde_json::from_slice(&body).map_err(|e| broken(&e))?;
            Err(ClientError::Refused(error))
        }
    }
}
