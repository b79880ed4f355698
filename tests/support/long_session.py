"""Creates a long conversation; `python -m tests.support.long_session USER_PK MESSAGES` prints its
id.

Run in a process of its own, with the site's environment.
"""

import sys

import django


def main() -> None:
    django.setup()
    from conversations.models import ChatSession, Message, Role

    owner, count = map(int, sys.argv[1:])
    session = ChatSession.objects.create(
        owner_id=owner, title=f"{count} messages", rev=1, message_count=count
    )
    messages: list[Message] = []
    for number in range(1, count + 1):
        role = Role.USER if number % 2 else Role.ASSISTANT
        text = f"Message {number} of {count}. " + "It has **some** words.\n\n" * 3
        message = Message(session=session, number=number, role=role, rev=1)
        message.parts = [{"type": "text", "text": text}]
        message.parent = messages[-1] if messages else None
        messages.append(message)
    Message.objects.bulk_create(messages, batch_size=500)
    session.active_leaf = messages[-1]
    session.save()
    sys.stdout.write(str(session.pk))


if __name__ == "__main__":
    main()
