"""Decides which errors mean that a store refused our credentials, what a person is told, and what no message shows."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from schemas.errors import AccessDenied

CREDENTIALS_FILE = "~/.mlflow/credentials"
"""Where MLflow itself looks for a user name and a password."""
ADVICE = {
    "http": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_PASSWORD_FILE), or "
    f"MLFLOW_TRACKING_TOKEN, or write {CREDENTIALS_FILE}",
    "postgresql": "set PGPASSWORD, or write ~/.pgpass (PGPASSFILE)",
    "ray": "set RAY_AUTH_TOKEN, or write ~/.ray/auth_token (RAY_AUTH_TOKEN_PATH)",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials (AWS_SHARED_CREDENTIALS_FILE)",
}
"""Where the credentials of a store belong, by the scheme of its URI."""
OTHER_ADVICE = "put them where the driver of that database reads them"

_LONGEST_ANSWER = 200
"""Characters of a server's answer that a message repeats."""
_DENIED_STATUS = frozenset({401, 403})
_DENIED_CODES = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
"""Codes by which S3 refuses credentials with another status."""
_DENIED_WORDS = (
    "password authentication failed", "no password supplied", "Access denied for user", "Login failed for user",
)  # fmt: skip
"""What PostgreSQL, MySQL and SQL Server say; their errors have no class or code of their own."""

_PASSWORD = re.compile(r"(://[^\s:/@]*):\S*@")
_SECRET_FIELD = re.compile(r"(?i)([?&](?:\w*password|passwd|pwd|token|secret|sslkey)=)[^&\s'\")]+")


def without_password(text: str) -> str:
    """Return a text, such as a URI or an error's message, with the passwords of its URIs replaced by asterisks."""
    return _SECRET_FIELD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def advice_for(uri: str) -> str:
    """Return where the credentials of a store belong, as what to do.

    Args:
        uri: The store.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    return ADVICE.get("http" if scheme == "https" else scheme, OTHER_ADVICE)


def is_denied(error: BaseException | None) -> bool:
    """Return whether a store answered that it does not accept our credentials, or none were found. Waiting is no use.

    Args:
        error: An exception of MLflow, its database, its server or an object store; its causes count too.
    """
    while error is not None:
        if _status(error) in _DENIED_STATUS or _code(error) in _DENIED_CODES or _lacks_credentials(error):
            return True
        if any(words in str(error) for words in _DENIED_WORDS):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def denial(uri: str, error: Exception) -> AccessDenied:
    """Return the error to raise when a store refused our credentials: one line, without any secret.

    Args:
        uri: The store.
        error: One for which `is_denied` holds.
    """
    if _status(error) == 403:
        why = f"{_who(uri) or 'a process without credentials'} may not do this ({_first_line(error)})"
    else:
        why = f"it does not accept {_who(uri)}" if _who(uri) else "it needs credentials, and none are set"
    return AccessDenied(
        f"The store {without_password(uri)} refused access from {socket.gethostname()}: {why}. On that machine: "
        f"{advice_for(uri)}."
    )


def check_login(uri: str) -> None:
    """Connect to a database server once, because MLflow itself tries for minutes before it raises.

    Args:
        uri: The store; nothing is done for other kinds than database servers.

    Raises:
        AccessDenied: It does not accept our credentials.
        SQLAlchemyError: It cannot be reached, or the URI cannot be used.
    """
    if uri.startswith(("http://", "https://", "sqlite:")) or "://" not in uri:
        return
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except SQLAlchemyError as error:
        if is_denied(error):
            raise denial(uri, error) from error
        raise


def _first_line(error: Exception) -> str:
    return without_password((str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST_ANSWER])


def _who(uri: str) -> str:
    """Return whose credentials are sent to a store, as the object of a sentence; empty if there are none."""
    if not uri.startswith(("http://", "https://")):
        return "these credentials"
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "this token"
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return f"user {name!r} with this password"
    return f"the credentials in {CREDENTIALS_FILE}" if Path(CREDENTIALS_FILE).expanduser().exists() else ""


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error of MLflow, requests or boto3; None if it has none."""
    from botocore.exceptions import ClientError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    if isinstance(error, RequestException):
        return error.response.status_code if error.response is not None else None
    if isinstance(error, ClientError):
        status: int | None = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status
    return None


def _code(error: BaseException) -> str:
    from botocore.exceptions import ClientError

    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _lacks_credentials(error: BaseException) -> bool:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    return isinstance(error, (NoCredentialsError, PartialCredentialsError))
