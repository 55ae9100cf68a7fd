// SPDX-License-Identifier: Apache-2.0
#include "mobilevlm_bt/ask.hpp"

#include <vector>

#include <behaviortree_ros2/plugins.hpp>

#include "mobilevlm_msgs/msg/status.hpp"

namespace mobilevlm_bt
{

using BT::InputPort;
using BT::NodeStatus;
using BT::OutputPort;
using Answer = mobilevlm_msgs::action::AskImage::Result;
using mobilevlm_msgs::msg::Status;

BT::PortsList Ask::providedPorts()
{
  return providedBasicPorts({
      InputPort<std::string>("question", "what is asked, in plain language"),
      InputPort<std::vector<std::string>>(
        "choices", std::vector<std::string>{}, "possible answers, as in 'red;green'; empty: free text"),
      InputPort<std::string>("camera", "", "name of a camera; empty: the node's default one"),
      InputPort<unsigned>("frames", 0U, "how many of the camera's last frames it is about; 0: the newest alone"),
      InputPort<double>("frame_interval", 0.0, "with frames: seconds between them; 0: as the node keeps them"),
      InputPort<double>("threshold", 0.0, "least confidence of an answer, 0 to 1"),
      InputPort<double>("timeout", 10.0, "for the answer, seconds"),
      InputPort<double>("wait_for_frame", 2.0, "for a fresh picture, seconds"),
      OutputPort<std::string>("answer", "what the model said"),
      OutputPort<double>("confidence", "how sure it is, 0 to 1"),
      OutputPort<std::string>("message", "why there is no answer"),
    });
}

bool Ask::setGoal(Goal & goal)
{
  if (!getInput("question", goal.question) || goal.question.empty()) {
    setOutput("message", std::string("the port 'question' is empty: write what is asked"));
    return false;
  }
  getInput("choices", goal.choices);
  getInput("camera", goal.camera);
  goal.frames = getInput<unsigned>("frames").value();
  goal.frame_interval = static_cast<float>(getInput<double>("frame_interval").value());
  goal.timeout = static_cast<float>(getInput<double>("timeout").value());
  goal.wait_for_frame = static_cast<float>(getInput<double>("wait_for_frame").value());
  return true;
}

NodeStatus Ask::onResultReceived(const WrappedResult & result)
{
  const Answer & answer = *result.result;
  setOutput("message", answer.status.message);
  if (answer.status.code != Status::OK) {
    RCLCPP_WARN(node_->get_logger(), "%s: %s", name().c_str(), answer.status.message.c_str());
    return NodeStatus::FAILURE;
  }
  setOutput("answer", answer.answer);
  setOutput("confidence", static_cast<double>(answer.confidence));
  return decide(answer);
}

NodeStatus Ask::onFailure(BT::ActionNodeErrorCode error)
{
  switch (error) {
    case BT::INVALID_GOAL:
      break;  // setGoal has said what is wrong
    case BT::ACTION_ABORTED:  // BehaviorTree.ROS2 keeps the result of such an action to itself
      setOutput("message", std::string("the node could not answer: its log and /diagnostics say why"));
      break;
    case BT::SERVER_UNREACHABLE:
    case BT::SEND_GOAL_TIMEOUT:
      setOutput("message", "the action '" + prev_action_name_ + "' does not respond: is the node running and active?");
      break;
    default:
      setOutput("message", std::string(BT::toStr(error)));
  }
  return NodeStatus::FAILURE;
}

NodeStatus Ask::decide(const Answer & answer)
{
  const double threshold = getInput<double>("threshold").value();
  return answer.confidence >= threshold ? NodeStatus::SUCCESS : NodeStatus::FAILURE;
}

BT::PortsList AskCondition::providedPorts()
{
  BT::PortsList ports = Ask::providedPorts();
  ports.erase("choices");
  ports.insert(InputPort<std::string>("expected", "yes", "'yes' or 'no'"));
  return ports;
}

bool AskCondition::setGoal(Goal & goal)
{
  if (!Ask::setGoal(goal)) {
    return false;
  }
  goal.choices = {"yes", "no"};
  return true;
}

NodeStatus AskCondition::decide(const Answer & answer)
{
  if (answer.answer != getInput<std::string>("expected").value()) {
    return NodeStatus::FAILURE;
  }
  return Ask::decide(answer);
}

}  // namespace mobilevlm_bt

BTCPP_EXPORT void BT_RegisterRosNodeFromPlugin(
  BT::BehaviorTreeFactory & factory, const BT::RosNodeParams & params)
{
  factory.registerNodeType<mobilevlm_bt::Ask>("Ask", params);
  factory.registerNodeType<mobilevlm_bt::AskCondition>("AskCondition", params);
}
