"""The unmodified pyshotgrid, a library on top of the official client.

    python test_pyshotgrid.py http://127.0.0.1:8190

What is asserted is what the library's own documentation promises of its calls.
"""

import datetime
import os
import sys
import tempfile
import unittest

import pyshotgrid

SCRIPT = "sgcache"
KEY = "sgcache-sim"
URL = None


class LibraryTest(unittest.TestCase):
    count = 0

    def setUp(self):
        LibraryTest.count += 1
        self.site = pyshotgrid.new_site(URL, SCRIPT, KEY)
        name = "library %d %f" % (LibraryTest.count, datetime.datetime.now().timestamp())
        self.project = self.site.create("Project", {"name": name, "tank_name": name.replace(" ", "_")})
        self.user = self.site.create("HumanUser", {"name": "Jo " + name, "login": name})
        self.shot = self.site.create("Shot", {"code": "010_0010", "project": self.project})

    def test_entities_are_found_by_name(self):
        self.assertEqual(self.site.project(self.project["tank_name"].get()), self.project)
        self.assertEqual(self.site.project(self.project.id), self.project)
        self.assertIn(self.project, self.site.projects())
        self.assertIn(self.user, self.site.people())
        self.assertEqual(self.project.shots(), [self.shot])
        self.assertEqual(self.project.shots("020_*"), [])

    def test_fields_are_objects(self):
        self.assertEqual(self.shot.name.get(), "010_0010")
        self.shot["description"].set("foggy")
        self.assertEqual(self.shot["description"].get(), "foggy")
        self.assertEqual(self.shot["project"].get(), self.project)
        asset = self.site.create("Asset", {"code": "tree", "project": self.project})
        self.shot["assets"].add([asset])
        self.assertEqual(self.shot["assets"].get(), [asset])
        self.shot["assets"].remove([asset])
        self.assertEqual(self.shot["assets"].get(), [])
        self.assertEqual(self.shot["code"].data_type, "text")
        self.assertEqual(self.shot["assets"].valid_types, ["Asset"])
        self.assertEqual(self.shot.entity_display_name, "Shot")
        self.assertIn("code", [field.name for field in self.shot.fields()])

    def test_every_field_of_an_entity_is_read_at_once(self):
        values = self.shot.all_field_values()
        self.assertEqual(values["code"], "010_0010")
        self.assertEqual(values["project"], self.project)

    def test_tasks_and_versions_are_asked_for_with_nested_filters(self):
        step = self.site.create("Step", {"code": "Layout", "short_name": "LAY", "entity_type": "Shot"})
        task = self.site.create(
            "Task",
            {"content": "layout", "project": self.project, "entity": self.shot, "step": step, "task_assignees": [self.user]},
        )
        self.assertEqual(self.shot.tasks(names=["layout", "other"]), [task])
        self.assertEqual(self.shot.tasks(pipeline_step="LAY"), [task])
        self.assertEqual(self.user.tasks(), [task])
        version = self.site.create(
            "Version", {"code": "v1", "project": self.project, "entity": self.shot, "user": self.user, "sg_task": task}
        )
        self.assertEqual(self.shot.versions(), [version])
        self.assertEqual(self.user.versions(), [version])
        self.assertEqual(self.project.versions(latest=True), [version])

    def test_the_newest_publish_is_known(self):
        kind = self.site.create("PublishedFileType", {"code": "kind " + self.project.name.get()})
        made = [
            self.site.create(
                "PublishedFile",
                {
                    "code": "scene.v%03d" % number, "name": "scene", "version_number": number,
                    "project": self.project, "entity": self.shot, "published_file_type": kind,
                },
            )
            for number in (1, 2)
        ]
        self.assertEqual(made[0].get_latest(), made[1])
        self.assertEqual(made[1].get_previous_publishes(), [made[0]])
        self.assertEqual(self.shot.publishes(latest=True), [made[1]])

    def test_files_are_uploaded_and_downloaded(self):
        version = self.site.create("Version", {"code": "v1", "project": self.project})
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "clip.mov"), os.path.join(folder, "copy.mov")
            with open(source, "wb") as file:
                file.write(b"frames")
            attachment = version["sg_uploaded_movie"].upload(source)
            self.assertEqual(attachment.type, "Attachment")
            version["sg_uploaded_movie"].download(target)
            with open(target, "rb") as file:
                self.assertEqual(file.read(), b"frames")
            version.thumbnail.upload(source)
            copy = version.thumbnail.download(os.path.join(folder, "thumb.jpg"))
            with open(copy, "rb") as file:
                self.assertEqual(file.read(), b"frames")

    def test_deleted_entities_are_gone(self):
        self.assertTrue(self.shot.delete())
        self.assertEqual(self.project.shots(), [])


if __name__ == "__main__":
    URL = sys.argv.pop()
    unittest.main()
