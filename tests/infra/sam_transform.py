"""What AWS SAM makes of template.yaml: functions and layers as CloudFormation, aliases, and resources of CodeDeploy.

`test_sam_local.py` compares the aliases and the resources of CodeDeploy with those of SAM's own translator, which has
its own environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Resource = dict[str, Any]


def expanded(template: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template with `AWS::Serverless` resources replaced by those that SAM generates from them."""
    shared = template["Globals"]["Function"]
    resources: dict[str, Resource] = {}
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            resources |= _function(logical_id, resource, shared, parameters)
        elif resource["Type"] == "AWS::Serverless::LayerVersion":
            resources[logical_id] = {**resource, "Type": "AWS::Lambda::LayerVersion"}
        else:
            resources[logical_id] = resource
    return {**template, "Resources": resources}


def _function(
    logical_id: str, resource: Resource, shared: Mapping[str, Any], parameters: Mapping[str, Any]
) -> dict[str, Resource]:
    own = dict(resource["Properties"])
    variables = shared["Environment"]["Variables"] | own.pop("Environment", {}).get("Variables", {})
    properties = {**shared, "PackageType": "Zip", **own, "Environment": {"Variables": variables}}
    properties["TracingConfig"] = {"Mode": properties.pop("Tracing")}
    function = {logical_id: {**resource, "Type": "AWS::Lambda::Function", "Properties": properties}}
    if "AutoPublishAlias" not in properties:
        return function
    return function | _alias(logical_id, properties, parameters)


def _alias(function: str, properties: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Resource]:
    name, version = properties["AutoPublishAlias"], f"{function}Version"
    alias: Resource = {
        "Type": "AWS::Lambda::Alias",
        "Properties": {
            "FunctionName": {"Ref": function},
            "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
            "Name": name,
        },
    }
    description = {"FunctionName": {"Ref": function}, "Description": properties["VersionDescription"]}
    found = {version: {"Type": "AWS::Lambda::Version", "Properties": description}, f"{function}Alias{name}": alias}
    preference = properties["DeploymentPreference"]
    if parameters[preference["Enabled"]["Ref"]] != "true":
        return found
    application, group = "ServerlessDeploymentApplication", f"{function}DeploymentGroup"
    policy = {"ApplicationName": {"Ref": application}, "DeploymentGroupName": {"Ref": group}}
    alias["UpdatePolicy"] = {"CodeDeployLambdaAliasUpdate": policy}
    return found | {
        application: {"Type": "AWS::CodeDeploy::Application", "Properties": {"ComputePlatform": "Lambda"}},
        group: {"Type": "AWS::CodeDeploy::DeploymentGroup", "Properties": _group(preference)},
        "CodeDeployServiceRole": {"Type": "AWS::IAM::Role", "Properties": _code_deploy_role()},
    }


def _group(preference: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ApplicationName": {"Ref": "ServerlessDeploymentApplication"},
        "ServiceRoleArn": {"Fn::GetAtt": ["CodeDeployServiceRole", "Arn"]},
        "DeploymentConfigName": f"CodeDeployDefault.Lambda{preference['Type']}",
        "DeploymentStyle": {"DeploymentType": "BLUE_GREEN", "DeploymentOption": "WITH_TRAFFIC_CONTROL"},
        "AlarmConfiguration": {"Enabled": True, "Alarms": [{"Name": alarm} for alarm in preference["Alarms"]]},
        "AutoRollbackConfiguration": {
            "Enabled": True,
            "Events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"],
        },
    }


def _code_deploy_role() -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": ["codedeploy.amazonaws.com"]}, "Action": ["sts:AssumeRole"]}
    policy = "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda"
    return {
        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
        "ManagedPolicyArns": [{"Fn::Sub": policy}],
    }
