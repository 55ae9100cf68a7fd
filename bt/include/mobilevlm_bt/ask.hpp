// SPDX-License-Identifier: Apache-2.0
// Leaves of BehaviorTree.CPP 4 that ask a running mobilevlm_node through its action `ask`.
#pragma once

#include <string>

#include <behaviortree_ros2/bt_action_node.hpp>

#include "mobilevlm_msgs/action/ask_image.hpp"

namespace mobilevlm_bt
{

// Asks a question about a camera's newest picture. SUCCESS when there is an answer that is sure enough (see the
// port `threshold`), FAILURE when there is none (no frame, timeout, no node) or it is not. Never blocks a tick;
// halting it stops the model at the next token.
class Ask : public BT::RosActionNode<mobilevlm_msgs::action::AskImage>
{
public:
  using RosActionNode::RosActionNode;

  // The ports of all leaves here.
  static BT::PortsList providedPorts();

  bool setGoal(Goal & goal) override;
  BT::NodeStatus onResultReceived(const WrappedResult & result) override;
  BT::NodeStatus onFailure(BT::ActionNodeErrorCode error) override;

protected:
  // What an answer means; its status is OK.
  virtual BT::NodeStatus decide(const mobilevlm_msgs::action::AskImage::Result & answer);
};

// Asks a yes/no question. SUCCESS when the answer is the one in the port `expected`.
class AskCondition : public Ask
{
public:
  using Ask::Ask;

  static BT::PortsList providedPorts();

  bool setGoal(Goal & goal) override;

protected:
  BT::NodeStatus decide(const mobilevlm_msgs::action::AskImage::Result & answer) override;
};

}  // namespace mobilevlm_bt
