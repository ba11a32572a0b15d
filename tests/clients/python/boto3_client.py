"""AWS's boto3: a Bedrock conversation, signed with made-up credentials."""
import sys

import boto3

client = boto3.client(
    "bedrock-runtime",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
answer = client.converse(modelId="mock", messages=[{"role": "user", "content": [{"text": "hello"}]}])
assert answer["output"]["message"]["content"][0]["text"], answer
print("done")
