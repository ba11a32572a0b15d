//! A row of the route table: method, path, handler, required access and description, declared once.
//!
//! `router` makes the router and the access check of the rows, and `openapi` the document.

use super::access::{RouteAccess, RouteRollouts};
use super::schema::{self, BodySchema};
use super::state::ApiState;
use super::token::Scope;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{self, MethodRouter};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

/// A route. Made by [`get`], [`post`] and the like, and then [`Unprotected::read`] or its siblings.
pub(super) struct Route {
    pub(super) operation: ApiOperation,
    pub(super) handler: MethodRouter<ApiState>,
    pub(super) retries: RetriedRequests,
}

/// What the OpenAPI document describes: a method of a path.
pub(super) struct ApiOperation {
    pub(super) method: Method,
    /// The path in axum's form: `{name}` is a segment, `{*name}` the rest of the path.
    pub(super) path: &'static str,
    pub(super) access: RouteAccess,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    /// Content types and schema of the request body. `None`: no body is read.
    pub(super) request: Option<(&'static [&'static str], BodySchema)>,
    /// Status, content types and schema of each response without an error. No content types: no body.
    pub(super) responses: Vec<(StatusCode, &'static [&'static str], BodySchema)>,
}

/// What happens when a client repeats a request because it got no response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RetriedRequests {
    /// The request is executed again.
    Executed,
    /// The response of the first execution is returned, see `idempotency`.
    Deduplicated,
}

const JSON: &[&str] = &["application/json"];

/// A route without a declared access.
pub(super) struct Unprotected {
    method: Method,
    path: &'static str,
    handler: MethodRouter<ApiState>,
}

macro_rules! constructors {
    ($($name:ident $method:ident)*) => {$(
        pub(super) fn $name<H, T>(path: &'static str, handler: H) -> Unprotected
        where
            H: Handler<T, ApiState>,
            T: 'static,
        {
            Unprotected { method: Method::$method, path, handler: routing::$name(handler) }
        }
    )*};
}
constructors!(get GET  post POST  put PUT  patch PATCH  delete DELETE);

impl Unprotected {
    /// Anyone may call the route.
    pub(super) fn open(self, summary: &'static str) -> Route {
        self.with(RouteAccess::Open, summary)
    }

    /// Callers need the scope `read`, for these rollouts.
    pub(super) fn read(self, rollouts: RouteRollouts, summary: &'static str) -> Route {
        self.with(RouteAccess::Token(Scope::Read, rollouts), summary)
    }

    /// Callers need the scope `write`, for these rollouts.
    pub(super) fn write(self, rollouts: RouteRollouts, summary: &'static str) -> Route {
        self.with(RouteAccess::Token(Scope::Write, rollouts), summary)
    }

    /// Callers need the scope `admin`; with a token for some rollouts, `write` for these.
    pub(super) fn admin(self, rollouts: RouteRollouts, summary: &'static str) -> Route {
        self.with(RouteAccess::Token(Scope::Admin, rollouts), summary)
    }

    /// Callers need the scope `write`, for these rollouts, or the signed key of an agent of theirs.
    pub(super) fn agent(self, rollouts: RouteRollouts, summary: &'static str) -> Route {
        self.with(RouteAccess::Agent(rollouts), summary)
    }

    fn with(self, access: RouteAccess, summary: &'static str) -> Route {
        let operation = ApiOperation::new(self.method, self.path, access, summary);
        Route { operation, handler: self.handler, retries: RetriedRequests::Executed }
    }
}

impl Route {
    /// Repeated requests are executed once.
    pub(super) fn deduplicated(self) -> Self {
        Self { retries: RetriedRequests::Deduplicated, ..self }
    }

    /// The query has these parameters, besides those declared before.
    pub(super) fn query<T: IntoParams>(mut self) -> Self {
        self.operation.query.extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// The request has a JSON body.
    pub(super) fn body(self, schema: BodySchema) -> Self {
        self.body_as(JSON, schema)
    }

    /// The request has a body of one of these content types.
    pub(super) fn body_as(mut self, content_types: &'static [&'static str], schema: BodySchema) -> Self {
        self.operation.request = Some((content_types, schema));
        self
    }

    /// The response to a successful request is 200 with a JSON body.
    pub(super) fn returns(self, schema: BodySchema) -> Self {
        self.returns_as(StatusCode::OK, JSON, schema)
    }

    /// The response to a successful request is 201 with a JSON body.
    pub(super) fn creates(self, schema: BodySchema) -> Self {
        self.returns_as(StatusCode::CREATED, JSON, schema)
    }

    /// The response to a successful request is 204.
    pub(super) fn returns_nothing(self) -> Self {
        self.returns_as(StatusCode::NO_CONTENT, &[], schema::object)
    }

    /// A response without an error has this status, and a body of one of these content types.
    pub(super) fn returns_as(
        mut self,
        status: StatusCode,
        content_types: &'static [&'static str],
        schema: BodySchema,
    ) -> Self {
        self.operation.responses.push((status, content_types, schema));
        self
    }
}

impl ApiOperation {
    pub(super) fn new(method: Method, path: &'static str, access: RouteAccess, summary: &'static str) -> Self {
        Self { method, path, access, summary, query: Vec::new(), request: None, responses: Vec::new() }
    }

    /// The names of the parameters in the path.
    pub(super) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        // A parameter may be a part of its segment: `{model}:generateContent`.
        let names = self.path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        names.map(|name| name.trim_start_matches('*'))
    }
}
