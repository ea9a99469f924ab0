"""Creates what the services of docker-compose.yml start without: the bucket, and the account of drivers and workers.

Run again, it changes nothing, except that the account gets the password that is set now. Reads from the environment:
S3_ADMIN_KEY, S3_ADMIN_SECRET, AWS_ENDPOINT_URL_S3, BUCKET; MLFLOW_TRACKING_URI, the administrator's
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and ORCH_ACCOUNT and ORCH_ACCOUNT_PASSWORD.
"""

from __future__ import annotations

import os

import boto3
from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client


def create_bucket(name: str) -> None:
    """Create a bucket unless it exists."""
    client = boto3.client(
        "s3", region_name="us-east-1",
        aws_access_key_id=os.environ["S3_ADMIN_KEY"], aws_secret_access_key=os.environ["S3_ADMIN_SECRET"],
    )  # fmt: skip
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.create_bucket(Bucket=name)


def create_account(name: str, password: str) -> None:
    """Create an account of MLflow without administrator's rights, or set the password of the one that exists."""
    accounts = get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
    try:
        accounts.get_user(name)
    except MlflowException as error:
        if error.get_http_status_code() != 404:
            raise
        accounts.create_user(name, password)
    else:
        accounts.update_user_password(name, password)


if __name__ == "__main__":
    create_bucket(os.environ["BUCKET"])
    create_account(os.environ["ORCH_ACCOUNT"], os.environ["ORCH_ACCOUNT_PASSWORD"])
    print("The bucket and the account are ready.")
