"""Every public method of the official client, on a site that may be written to.

    python test_methods.py URL [SITE]

SITE is what the site calls itself, where URL is a proxy before it. What comes back is compared with the shapes that the client's documentation and its
live tests show. Runs with older clients too: what they lack is left out. The site
must make thumbnails at once (`--thumbnail-delay 0s`).
"""

import datetime
import os
import sys
import tempfile
import time
import unittest

import shotgun_api3

SCRIPT = "sgcache"
KEY = "sgcache-sim"
URL = None
# What the site calls itself in addresses; behind a proxy another one than URL.
SITE = None

PUBLIC = {
    name
    for name in dir(shotgun_api3.Shotgun)
    if not name.startswith("_") and callable(getattr(shotgun_api3.Shotgun, name))
}
CALLED = set()


class Noting:
    """A client that notes which of its methods were called."""

    def __init__(self, **arguments):
        arguments = arguments or {"script_name": SCRIPT, "api_key": KEY}
        self.client = shotgun_api3.Shotgun(URL, **arguments)

    def __getattr__(self, name):
        if name in PUBLIC:
            CALLED.add(name)
        return getattr(self.client, name)


class MethodTest(unittest.TestCase):
    maxDiff = None
    count = 0

    def setUp(self):
        self.sg = Noting()
        self.addCleanup(self.sg.close)
        MethodTest.count += 1
        self.unique = "%d %f" % (MethodTest.count, datetime.datetime.now().timestamp())
        self.project = self.sg.create("Project", {"name": "methods " + self.unique})
        self.shot = self.new("Shot", code="shot " + self.unique)
        self.login = "user " + self.unique
        self.user = self.sg.create(
            "HumanUser", {"name": "Jo " + self.unique, "login": self.login, "password_proxy": "pw"}
        )

    def new(self, entity_type, **fields):
        return self.sg.create(entity_type, dict(fields, project=self.project))

    def has(self, *methods):
        missing = [name for name in methods if name not in PUBLIC]
        if missing:
            self.skipTest("this client has no %s" % ", ".join(missing))

    def file(self, name, content):
        folder = tempfile.mkdtemp()
        path = os.path.join(folder, name)
        with open(path, "wb") as out:
            out.write(content)
        self.addCleanup(lambda: (os.remove(path), os.rmdir(folder)))
        return path

    def link(self, row):
        return {"type": row["type"], "id": row["id"]}

    def read(self, row, *fields):
        return self.sg.find_one(row["type"], [["id", "is", row["id"]]], list(fields))


class Connection(MethodTest):
    def test_a_connection_is_made_and_closed(self):
        self.sg.connect()
        info = self.sg.info()
        self.assertGreaterEqual(tuple(info["version"][:3]), (8, 5, 0))
        self.sg.close()
        self.assertIsNotNone(self.read(self.shot))
        self.sg.add_user_agent("mine 1.0")
        self.sg.reset_user_agent()

    def test_a_session_stands_for_its_owner(self):
        token = self.sg.get_session_token()
        again = Noting(session_token=token)
        self.assertEqual(again.find_one("Shot", [["id", "is", self.shot["id"]]])["id"], self.shot["id"])
        # The cookie that downloads are made with; older clients install it at once.
        make_cookie = "get_auth_cookie_handler" if "get_auth_cookie_handler" in PUBLIC else "set_up_auth_cookie"
        getattr(self.sg, make_cookie)()

    def test_people_log_in(self):
        found = self.sg.authenticate_human_user(self.login, "pw")
        self.assertEqual(found["login"], self.login)
        with self.assertRaises(shotgun_api3.AuthenticationFault):
            Noting(login=self.login, password="no").find_one("Shot", [])
        sudo = Noting(script_name=SCRIPT, api_key=KEY, sudo_as_login=self.login)
        made = sudo.create("Shot", {"code": "x", "project": self.project}, ["created_by"])
        self.assertEqual(made["created_by"]["id"], self.user["id"])

    def test_a_session_id_is_noted_in_the_event_log(self):
        uuid = "5f6b1c1e-0000-4000-8000-000000000001"
        self.sg.set_session_uuid(uuid)
        self.sg.update("Shot", self.shot["id"], {"description": "noted"})
        newest = [{"field_name": "id", "direction": "desc"}]
        filters = [["entity", "is", self.shot], ["attribute_name", "is", "description"]]
        entry = self.sg.find_one("EventLogEntry", filters, ["session_uuid"], order=newest)
        self.assertEqual(entry["session_uuid"], uuid)

    def test_methods_that_are_gone_say_so(self):
        for call in (lambda: self.sg.schema("Shot"), self.sg.entity_types):
            self.assertRaises(shotgun_api3.ShotgunError, call)


class Rows(MethodTest):
    def test_create_update_delete_revive(self):
        made = self.sg.create("Shot", {"code": "a", "project": self.project}, ["sg_status_list"])
        self.assertEqual(set(made), {"code", "project", "sg_status_list", "type", "id"})
        changed = self.sg.update("Shot", made["id"], {"description": "b"})
        self.assertEqual(changed, {"type": "Shot", "id": made["id"], "description": "b"})
        self.assertIs(self.sg.delete("Shot", made["id"]), True)
        self.assertIs(self.sg.delete("Shot", made["id"]), False)
        self.assertIs(self.sg.revive("Shot", made["id"]), True)
        self.assertIs(self.sg.revive("Shot", made["id"]), False)
        self.assertRaisesRegex(
            shotgun_api3.Fault, r"CRUD ERROR #3: Entity of type \[Shot\] with id=99999999", self.sg.delete, "Shot", 99999999
        )

    def test_lists_of_links_are_set_added_to_and_taken_from(self):
        a, b, c = [self.link(self.new("Asset", code=code)) for code in "abc"]
        ids = lambda row: sorted(asset["id"] for asset in row["assets"])

        def change(links, mode):
            modes = {"multi_entity_update_modes": {"assets": mode}} if mode else {}
            return ids(self.sg.update("Shot", self.shot["id"], {"assets": links}, **modes))

        self.assertEqual(change([a], None), [a["id"]])
        self.assertEqual(change([b, c], "add"), [a["id"], b["id"], c["id"]])
        self.assertEqual(change([a, c], "remove"), [b["id"]])
        self.assertEqual(change([c], "set"), [c["id"]])
        back = self.read(c, "shots")
        self.assertEqual([shot["id"] for shot in back["shots"]], [self.shot["id"]])

    def test_names_that_must_be_unique_are_refused_in_the_words_of_a_site(self):
        name = self.project["name"]
        self.assertRaisesRegex(
            shotgun_api3.Fault,
            r"CRUD ERROR #61: Create failed for \[Project\]. The value for the Project Name field is required to be unique",
            self.sg.create, "Project", {"name": name},
        )
        other = self.sg.create("Project", {"name": "other " + self.unique})
        self.assertRaisesRegex(
            shotgun_api3.Fault, r"CRUD ERROR #51: Update failed for \[Project.name\]",
            self.sg.update, "Project", other["id"], {"name": name},
        )
        self.assertRaisesRegex(shotgun_api3.Fault, "missing 'project' attribute", self.sg.create, "Shot", {"code": "a"})

    def test_a_batch_is_all_or_nothing(self):
        create = {"request_type": "create", "entity_type": "Shot", "data": {"code": "batch", "project": self.project}}
        update = {"request_type": "update", "entity_type": "Shot", "entity_id": self.shot["id"], "data": {"code": "new"}}
        gone = {"request_type": "delete", "entity_type": "Shot", "entity_id": 99999999}
        with self.assertRaisesRegex(shotgun_api3.Fault, r"request with index 2 failed\.  All requests rolled back\."):
            self.sg.batch([create, update, gone])
        mine = [["project", "is", self.project]]
        self.assertEqual([row["code"] for row in self.sg.find("Shot", mine, ["code"])], [self.shot["code"]])
        gone["entity_id"] = self.shot["id"]
        made, changed, retired = self.sg.batch([create, update, gone])
        self.assertEqual((made["code"], changed["code"], retired), ("batch", "new", True))

    def test_rows_are_found_and_summed(self):
        self.sg.update("Shot", self.shot["id"], {"sg_cut_duration": 7})
        mine = [["project", "is", self.project]]
        found = self.sg.find("Shot", mine, ["code", "project.Project.name"], order=[{"field_name": "id"}], limit=5)
        self.assertEqual(found[0]["project.Project.name"], self.project["name"])
        fields = [{"field": "sg_cut_duration", "type": "sum"}, {"field": "id", "type": "count"}]
        grouping = [{"field": "sg_status_list", "type": "exact", "direction": "asc"}]
        answer = self.sg.summarize("Shot", mine, fields, grouping=grouping)
        totals = {"sg_cut_duration": 7, "id": 1}
        group = {"group_name": "wtg", "group_value": "wtg", "summaries": totals}
        self.assertEqual(answer, {"summaries": totals, "groups": [group]})


class Schema(MethodTest):
    def test_fields_are_made_changed_and_deleted(self):
        types = self.sg.schema_entity_read(self.project)
        self.assertEqual(types["Shot"]["name"], {"value": "Shot", "editable": False})
        self.assertIn("code", self.sg.schema_read(self.project)["Shot"])
        words = "made %s" % self.unique.replace(".", "")
        name = self.sg.schema_field_create("Shot", "list", words, {"valid_values": ["a", "b"], "description": "c"})
        self.assertEqual(name, "sg_" + words.replace(" ", "_"))
        field = self.sg.schema_field_read("Shot", name)[name]
        self.assertEqual(field["properties"]["valid_values"]["value"], ["a", "b"])
        self.assertEqual(field["description"], {"value": "c", "editable": True})
        self.sg.update("Shot", self.shot["id"], {name: "a"})
        self.assertRaises(shotgun_api3.Fault, self.sg.update, "Shot", self.shot["id"], {name: "z"})
        self.assertIs(self.sg.schema_field_update("Shot", name, {"name": "Renamed"}), True)
        self.assertEqual(self.sg.schema_field_read("Shot", name)[name]["name"]["value"], "Renamed")
        self.assertIs(self.sg.schema_field_delete("Shot", name), True)
        self.assertNotIn(name, self.sg.schema_field_read("Shot"))


class Company(MethodTest):
    def test_people_follow(self):
        user, shot = self.link(self.user), self.link(self.shot)
        self.assertEqual(self.sg.follow(user, shot), {"followed": True, "user": user, "entity": shot})
        follower = {"status": "act", "valid": "valid", "name": self.user["name"], **user}
        self.assertEqual(self.sg.followers(shot), [follower])
        self.assertEqual(self.sg.following(user, project=self.project, entity_type="Shot"), [shot])
        self.assertEqual(self.sg.unfollow(user, shot), {"unfollowed": True, "user": user, "entity": shot})

    def test_activity_and_threads(self):
        note = self.new("Note", subject="n", content="text", note_links=[self.shot])
        reply = self.sg.create("Reply", {"content": "answer", "entity": note, "user": self.user})
        stream = self.sg.activity_stream_read("Shot", self.shot["id"], {"Note": ["content"]})
        keys = {"earliest_update_id", "entity_id", "entity_type", "latest_update_id", "updates"}
        self.assertEqual(set(stream), keys)
        self.assertEqual([u["update_type"] for u in stream["updates"]], ["create_reply", "create", "create"])
        keys = {"created_at", "created_by", "id", "meta", "primary_entity", "read", "update_type"}
        self.assertEqual(set(stream["updates"][0]), keys)
        self.assertEqual(stream["updates"][1]["primary_entity"]["content"], "text")
        thread = self.sg.note_thread_read(note["id"], {"Note": ["subject"]})
        self.assertEqual([row["type"] for row in thread], ["Note", "Reply"])
        keys = {"content", "created_at", "created_by", "id", "type", "subject"}
        self.assertEqual(set(thread[0]), keys)
        self.assertEqual(thread[1]["id"], reply["id"])

    def test_names_are_searched(self):
        answer = self.sg.text_search(self.shot["code"], {"Shot": [], "Asset": []}, [self.project["id"]], limit=3)
        keys = {"id", "type", "name", "project_id", "image", "links", "status"}
        self.assertEqual([set(match) for match in answer["matches"]], [keys])
        self.assertEqual(answer["matches"][0]["id"], self.shot["id"])
        self.assertEqual(answer["terms"], self.shot["code"].split())

    def test_the_navigation(self):
        self.has("nav_expand", "nav_search_string", "nav_search_entity")
        root = f"/Project/{self.project['id']}"
        node = self.sg.nav_expand(root)
        keys = {"label", "ref", "parent_path", "path", "target_entities", "has_children", "children"}
        self.assertEqual(set(node), keys)
        self.assertEqual([child["label"] for child in node["children"]], ["Assets", "Shots"])
        (place,) = self.sg.nav_search_entity(root, self.shot)
        self.assertEqual(set(place), {"label", "incremental_path", "path_label", "ref", "project_id"})
        self.assertEqual(place["ref"], {"type": "Shot", "id": self.shot["id"]})
        self.assertIn(place, self.sg.nav_search_string(root, self.shot["code"]))
        inside = self.sg.nav_expand(place["incremental_path"][2])
        self.assertIn(self.shot["code"], [child["label"] for child in inside["children"]])

    def test_what_no_source_shows_is_refused_and_not_guessed(self):
        self.assertRaisesRegex(shotgun_api3.Fault, "^not simulated: nav_expand of /", self.sg.nav_expand, "/")

    def test_work_schedules(self):
        rule = self.sg.work_schedule_update("2031-01-06", False, "off", project=self.project)
        project = {"type": "Project", "id": self.project["id"], "name": self.project["name"]}
        expected = {"date": "2031-01-06", "description": "off", "project": project, "user": None, "working": False}
        self.assertEqual(rule, expected)
        days = self.sg.work_schedule_read("2031-01-05", "2031-01-06", self.project)
        self.assertEqual(
            days,
            {
                "2031-01-05": {"description": None, "reason": "STUDIO_WORK_WEEK", "working": False},
                "2031-01-06": {"description": "off", "reason": "PROJECT_EXCEPTION", "working": False},
            },
        )

    def test_the_last_access_is_a_moment(self):
        before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=2)
        self.sg.update_project_last_accessed(self.project, self.user)
        person = Noting(login=self.login, password="pw")
        project = person.find_one("Project", [["id", "is", self.project["id"]]], ["last_accessed_by_current_user"])
        self.assertGreater(project["last_accessed_by_current_user"], before)

    def test_preferences(self):
        self.has("preferences_read")
        self.assertEqual(self.sg.preferences_read(["hours_per_day"]), {"hours_per_day": 8.0})
        self.assertEqual(len(self.sg.preferences_read()), 17)

    def test_subscriptions(self):
        self.has("user_subscriptions_read", "user_subscriptions_create")
        given = {"humanUserId": self.user["id"], "subscription": None}
        self.assertIs(self.sg.user_subscriptions_create([given]), True)
        self.assertIn(given, self.sg.user_subscriptions_read())

    def test_a_page_that_was_not_marked_is_not_exported(self):
        self.has("export_page")
        self.assertRaisesRegex(shotgun_api3.Fault, "^Export for Page id=7 not available$", self.sg.export_page, 7, "csv")


class Files(MethodTest):
    def test_a_file_is_uploaded_found_and_downloaded(self):
        version = self.new("Version", code="v")
        path = self.file("clip.mov", b"\r\n--not a boundary--\r\n" * 50)
        name = "sg_uploaded_movie"
        number = self.sg.upload("Version", version["id"], path, name, display_name="the clip", tag_list="a, b")
        field = self.read(version, name)[name]
        url = "%s/file_serve/attachment/%d" % (SITE, number)
        shown = {"link_type": "upload", "name": "clip.mov", "type": "Attachment", "id": number, "url": url}
        self.assertEqual({key: field[key] for key in shown}, shown)
        row = self.sg.find_one(
            "Attachment", [["id", "is", number]], ["display_name", "attachment_links", "tags", "file_size", "project"]
        )
        self.assertEqual(row["display_name"], "the clip")
        self.assertEqual([tag["name"] for tag in row["tags"]], ["a", "b"])
        self.assertEqual(row["file_size"], os.path.getsize(path))
        self.assertEqual(row["attachment_links"][0]["id"], version["id"])
        with open(path, "rb") as file:
            content = file.read()
        self.assertEqual(self.sg.download_attachment(field), content)
        self.assertEqual(self.sg.download_attachment(number), content)
        self.assertTrue(self.sg.get_attachment_download_url(number).endswith("/file_serve/attachment/%d" % number))
        self.assertRaises(shotgun_api3.ShotgunFileDownloadError, self.sg.download_attachment, 99999999)

    def test_large_files_go_in_parts(self):
        if not self.sg.server_info.get("s3_direct_uploads_enabled"):
            self.skipTest("the site takes files itself")
        version = self.new("Version", code="v")
        self.sg.client._MULTIPART_UPLOAD_CHUNK_SIZE = 1000
        content = bytes(range(256)) * 10
        number = self.sg.upload("Version", version["id"], self.file("large.bin", content), "sg_uploaded_movie")
        self.assertEqual(self.sg.download_attachment(number), content)

    def test_links_to_the_web_and_to_local_files(self):
        version = self.new("Version", code="v", sg_uploaded_movie={"url": "http://example.com/x", "name": "x"})
        link = self.read(version, "sg_uploaded_movie")["sg_uploaded_movie"]
        self.assertEqual((link["link_type"], link["url"], link["name"]), ("web", "http://example.com/x", "x"))
        root = "/mnt/" + self.unique.replace(" ", "_")
        self.sg.create("LocalStorage", {"code": root, "linux_path": root, "mac_path": root, "windows_path": "Z:" + root})
        local = {"local_path": root + "/a/b.mov", "name": "b"}
        self.sg.update("Version", version["id"], {"sg_uploaded_movie": local})
        link = self.read(version, "sg_uploaded_movie")["sg_uploaded_movie"]
        self.assertEqual((link["link_type"], link["local_path"]), ("local", root + "/a/b.mov"))
        outside = {"sg_uploaded_movie": {"local_path": "/nowhere/b.mov"}}
        self.assertRaises(shotgun_api3.Fault, self.sg.update, "Version", version["id"], outside)

    def test_thumbnails_are_uploaded_shared_and_cleared(self):
        path = self.file("thumb.png", b"PNG")
        number = self.sg.upload_thumbnail("Shot", self.shot["id"], path)
        self.assertIsInstance(number, int)
        self.assertIsInstance(self.sg.upload_filmstrip_thumbnail("Shot", self.shot["id"], path), int)
        image = self.read(self.shot, "image")["image"]
        self.assertEqual(self.sg.download_attachment({"url": image}), b"PNG")
        other = self.new("Shot", code="other")
        self.assertEqual(self.sg.share_thumbnail([self.link(other)], source_entity=self.link(self.shot)), number)
        bare = lambda url: url.split("?")[0]
        shared = self.read(other, "image")["image"]
        self.assertEqual(bare(shared), bare(image))
        self.assertNotEqual(shared, image)
        self.sg.update("Shot", self.shot["id"], {"image": None})
        cleared = self.read(self.shot, "image", "filmstrip_image")
        self.assertEqual((cleared["image"], cleared["filmstrip_image"]), (None, None))


def load_tests(loader, tests, pattern):
    """Asks last which methods were never called."""

    class Every(unittest.TestCase):
        def test_no_public_method_was_left_out(self):
            self.assertEqual(PUBLIC - CALLED, set())

    tests.addTests(loader.loadTestsFromTestCase(Every))
    return tests


if __name__ == "__main__":
    URL, SITE = (sys.argv[1:] * 2)[:2]
    del sys.argv[1:]
    unittest.main()
