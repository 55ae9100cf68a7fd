# SPDX-License-Identifier: Apache-2.0
"""The two ends of an AskImage service, without a model: do the installed interfaces work between processes?

`ask_image_peer.py serve` answers one question and exits; `ask_image_peer.py ask QUESTION` prints the answer.
Run under any Python with rclpy and mobilevlm_msgs.
"""

import sys

import rclpy
from mobilevlm_msgs.srv import AskImage

SERVICE = "ask_image_peer/reverse"
"""Not the node's own name: one of its servers in the same domain would answer as well."""
CLIENT = "ask_image_peer_client"


def serve() -> int:
    node = rclpy.create_node("ask_image_peer_server")
    served: list[str] = []

    def answer(request: AskImage.Request, response: AskImage.Response) -> AskImage.Response:
        response.status.code = response.status.OK
        response.answer = request.question[::-1]
        response.choice_probabilities = [0.25, 0.75]
        served.append(request.question)
        return response

    node.create_service(AskImage, SERVICE, answer)
    print("serving", flush=True)
    while not served or CLIENT in node.get_node_names():  # a response that got lost is asked for again
        rclpy.spin_once(node, timeout_sec=0.2)
    return 0


def ask(question: str) -> int:
    node = rclpy.create_node(CLIENT)
    client = node.create_client(AskImage, SERVICE)
    if not client.wait_for_service(timeout_sec=20):
        print("no service", file=sys.stderr)
        return 1
    for _ in range(5):  # a server drops its response to a client that it has not discovered yet
        future = client.call_async(AskImage.Request(question=question))
        rclpy.spin_until_future_complete(node, future, timeout_sec=5)
        if future.done():
            break
    else:
        print("no answer", file=sys.stderr)
        return 1
    response = future.result()
    assert response.status.code == response.status.OK
    assert list(response.choice_probabilities) == [0.25, 0.75]
    print(response.answer)
    return 0


if __name__ == "__main__":
    rclpy.init()
    sys.exit(serve() if sys.argv[1] == "serve" else ask(sys.argv[2]))
